"""What the scheduler promises, each promise as a check of one step against the world's record.

A check may be weaker than its promise where the record cannot tell (charges that were estimated
lie between a least and a most); it is never stronger, so that whoever breaks one has a bug.
"""

from __future__ import annotations

from collections.abc import Iterable

from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceState
from tests.support.scheduler_book import Book
from tests.support.scheduler_promise import (
    ON_ITS_WAY,
    fits_alone,
    had_trouble,
    is_victim,
    may_fit_together,
    promise,
)
from tests.support.scheduler_records import Step
from tests.support.scheduler_room import Room, can_be_freed, needs_of, ranking, stuck

# 1


@promise
def what_is_admitted_fits(book: Book, step: Step) -> Iterable[str]:
    """Nothing starts or wakes without room in every pool, a slot and a place for its worker."""
    for each in step.admitted:
        for pool, size in each.needs.items():
            if size > each.room.get(pool, size):
                yield f"{each.key} needs {size} of {pool}, where {each.room[pool]} is left"
        slots, workers = book.limits.models_max, book.limits.workers_max
        if slots and each.slots >= slots:
            yield f"{each.key} was admitted though {each.slots} slots are taken"
        if workers and each.workers >= workers:
            yield f"{each.key} was admitted though {each.workers} workers run"


@promise
def the_ledger_agrees(book: Book, step: Step) -> Iterable[str]:
    """Each worker is charged until it has gone, with no less and no more than it may be."""
    ledger = book.scheduler.ledger
    for pool in book.pools:
        besides = sum(each.sizes.get(pool, 0) for each in book.holdings.values())
        low = besides + sum(worker.low.get(pool, 0) for worker in book.workers.values())
        high = besides + sum(worker.high.get(pool, 0) for worker in book.workers.values())
        if not low <= ledger.charged(pool) <= high:
            yield f"{ledger.charged(pool)} is charged of {pool}; it must be from {low} to {high}"


@promise
def memory_taken_by_others_is_made_up_for(book: Book, step: Step) -> Iterable[str]:
    """Where others grow so that we hold too much, idle instances go, and only idle ones: at once.

    What those hold of whom nobody knew what they need is no reason for it.
    """
    if book.closing:
        return
    capacities = book.capacities()
    for pool in book.pools:
        staying = [
            worker
            for key, worker in book.workers.items()
            if worker.phase not in ("stopping", "falling_asleep")
            and book.state(key) is not InstanceState.DRAINING
        ]
        over = sum(worker.low.get(pool, 0) for worker in staying) - capacities[pool]
        over -= sum(worker.high.get(pool, 0) for worker in staying if worker.price is None)
        if over <= 0:
            continue
        for key, worker in book.workers.items():
            is_idle = worker.phase == "ready" and not worker.leases
            if (
                is_idle
                and worker.low.get(pool, 0) > 0
                and not book.agreed(key).pinned
                and not book.wants(key)
                and not book.company(key)
            ):
                yield f"{key} is idle and stays though {pool} is {over} short"


@promise
def what_can_be_shed_goes_first(book: Book, step: Step) -> Iterable[str]:
    """Holders give back what is needed and no more, before anybody else has to go for it."""
    ledger = book.scheduler.ledger
    for pool, reading in book.pools.items():
        over = ledger.charged(pool) - reading.capacity_bytes
        left = sum(each.sizes.get(pool, 0) for each in book.holdings.values() if each.sheddable)
        if over > 0 and left > 0:
            yield f"{left} of {pool} could be shed, and {over} too much is charged"
        if over < 0 and any(each.pool == pool for each in step.shed):
            yield f"more of {pool} was shed than was needed, by {-over}"


# 2


@promise
def a_leased_instance_is_never_a_victim(book: Book, step: Step) -> Iterable[str]:
    """Nobody sleeps, stops or is killed as long as a lease is out."""
    for each in step.lowered:
        if each.leases:
            yield f"{each.key} got {each.action} with leases {sorted(each.leases)}"


@promise
def ready_is_granted_at_once(book: Book, step: Step) -> Iterable[str]:
    """Nobody waits for what is loaded; nothing but what is ready is granted."""
    for asked, phases in step.granted:
        if any(phase != "ready" for phase in phases):
            yield f"request {asked.id} was granted what is {phases}"
        spared = {each.instance for each in step.announced if each.state is InstanceState.LOADED}
        for key in set(asked.keys) - spared:
            is_still = book.state(key) is InstanceState.DRAINING
            if step.before.get(key) is InstanceState.DRAINING and is_still:
                yield f"request {asked.id} was granted {key}, which drains"
    if not book.closing:
        for asked in book.requests.values():
            if all(book.state(key) is InstanceState.LOADED for key in asked.wanted):
                yield f"request {asked.id} waits for what is loaded"


# 3


@promise
def nothing_loads_unwanted(book: Book, step: Step) -> Iterable[str]:
    """A load that nobody waits for is taken back; as long as somebody does, it goes on."""
    for key, worker in book.workers.items():
        if worker.phase == "loading" and not worker.guessed and not book.wants(key):
            yield f"{key} loads though nobody waits for it"
    if isinstance(step.event, events.Unload | events.Shutdown):
        return
    for each in step.lowered:
        if each.phase in ("loading", "waking") and book.wants(each.key):
            yield f"the load of {each.key} was stopped though somebody waits for it"


# 4


@promise
def one_that_waits_blocks_no_other(book: Book, step: Step) -> Iterable[str]:
    """What fits beside all that is promised to others is started at once."""
    if book.closing or not book.requests:
        return
    room = Room(book, at_most=False)
    missing = stuck(book)
    if not missing:
        return
    for key in missing:
        if key in book.workers or not book.prices.get(key) or had_trouble(book, key):
            continue
        if book.is_held_back(key):
            continue
        beside = room.copy()
        for other in missing:
            if other != key:
                beside.take(needs_of(book, other))
        good = [price for price in book.prices[key] if not price.placement.degraded]
        if any(beside.fits(key, price) for price in good):
            alone = [asked for asked in book.wants(key) if len(asked.wanted) == 1]
            if alone:
                yield f"{key} waits though there is room for it"


@promise
def who_is_first_goes_first(book: Book, step: Step) -> Iterable[str]:
    """Overdue requests go before others, then those of a higher priority, then the older."""
    if not step.admitted or not book.requests:
        return
    missing = stuck(book)
    for each in step.admitted:
        if len(missing) != 1 or each.worker.guessed or each.is_wake:
            continue
        (key,) = missing
        prices = [price for price in book.prices.get(key, ()) if not price.placement.degraded]
        asked = book.wants(key)
        if key in book.workers or not prices or had_trouble(book, key) or book.is_held_back(key):
            continue
        if any(len(one.wanted) > 1 for one in asked):
            continue
        theirs = book.wants(each.key)
        if not theirs or ranking(book, asked) >= ranking(book, theirs):
            continue
        if Room.as_admitted(book, each).fits(key, prices[0]):
            yield f"{each.key} was started before {key}, whose turn it was"


# 5


@promise
def no_more_are_evicted_than_needed(book: Book, step: Step) -> Iterable[str]:
    """Each victim is needed: without it, what waits would not fit."""
    victims = [each for each in step.lowered if is_victim(step, each) and not each.overdrawn]
    if not victims:
        return
    if any(had_trouble(book, key) for key in stuck(book)) or step.announced_as("load_failed"):
        return
    for victim in victims:
        needs = {companion.instance for companion in book.agreed(victim.key).companions}
        if needs & {each.key for each in victims}:
            continue  # it may not stay without the other
        # As if this one stayed as it was, and all others that stop were gone.
        room = Room(book, at_most=False, but_leaving_are_gone=True)
        if victim.worker.phase == "stopping":
            room.take_worker(victim.key, victim.worker, was=victim.phase)
        for key in stuck(book):
            room.take(needs_of(book, key))
        if not room.is_oversold:
            yield f"{victim.key} was evicted though all that waits fits beside it"


@promise
def idle_victims_go_before_anything_is_degraded(book: Book, step: Step) -> Iterable[str]:
    """Nothing is placed worse than it could be if idle instances went."""
    for each in step.admitted:
        price = each.worker.price
        if price is None or not price.placement.degraded or each.is_wake or each.worker.guessed:
            continue
        room = Room.as_admitted(book, each)
        for key, worker in book.workers.items():
            if key != each.key and can_be_freed(book, step, key, worker):
                room.give_back(key, worker)
        for key in stuck(book):
            room.take(needs_of(book, key))
        good = [one for one in book.prices[each.key] if not one.placement.degraded]
        if any(room.fits(each.key, one) for one in good):
            yield f"{each.key} was placed degraded though idle ones could have gone"


# 6


@promise
def what_never_fits_is_refused_at_once(book: Book, step: Step) -> Iterable[str]:
    """With what it needs and what there is; and it costs nobody anything."""
    for asked, failure in step.rejected:
        if failure.kind == "ModelTooLargeError":
            fits = may_fit_together(book, asked.wanted, at_most=True)
            if fits and all(fits_alone(book, key) for key in asked.wanted):
                yield f"request {asked.id} was refused as too large though it fits"
            if not failure.fields.get("devices"):
                yield f"the refusal of request {asked.id} does not say what is lacking"
            gone = [each.key for each in step.lowered if is_victim(step, each)]
            if not book.requests and gone:
                yield f"{gone[0]} had to go for a request that never fits"
    if book.closing:
        return
    for asked in book.requests.values():
        told = isinstance(step.event, events.Request) and step.event.id == asked.id
        priced = step.event.instance if isinstance(step.event, events.Priced) else None
        for key in asked.keys:
            known = key not in book.workers and book.prices.get(key)
            if (told or key == priced) and known and not fits_alone(book, key):
                yield f"request {asked.id} waits for {key}, which never fits"
        begins = any(book.state(key) not in ON_ITS_WAY for key in asked.wanted)
        is_new = begins and (told or priced in asked.wanted)
        if is_new and not may_fit_together(book, asked.wanted, at_most=False):
            yield f"request {asked.id} waits for models that never fit together"


@promise
def nobody_waits_longer_than_allowed(book: Book, step: Step) -> Iterable[str]:
    """Who has no room within ``queue_timeout_seconds`` is refused, and nobody before."""
    for asked, failure in step.rejected:
        if failure.kind == "QueueTimeoutError":
            if step.now < book.deadline(asked):
                yield f"request {asked.id} was refused before its time"
            if not failure.fields.get("retry_after_seconds"):
                yield f"request {asked.id} was not told when to ask again"
    if book.closing:
        return
    gone = {each.key for each in step.lowered}
    for asked in book.requests.values():
        # What leaves in this step is missed in the next one.
        if step.now >= book.deadline(asked) and not gone & asked.wanted:
            states = {book.state(key) for key in asked.wanted}
            if asked.event.timeout_seconds is not None or not states <= ON_ITS_WAY:
                yield f"request {asked.id} waits since {asked.since} and is not refused"
