"""What the scheduler promises, each promise as a check of one step against the world's record.

A check may be weaker than its promise where the record cannot tell (charges that were estimated
lie between a least and a most); it is never stronger, so that whoever breaks one has a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from llm_router_mw.scheduler import actions, events
from llm_router_mw.types import InstanceKey, InstanceState, Price
from tests.support.scheduler_book import Asked, Book, Lowered, Step, Violation, Worker
from tests.support.scheduler_room import Room, can_be_freed, needs_of, ranking, stuck

ON_ITS_WAY = frozenset({InstanceState.LOADING, InstanceState.LOADED, InstanceState.WAKING})


@dataclass(frozen=True, slots=True)
class Promise:
    """A name, and a function that raises :class:`Violation` if a step breaks it."""

    name: str
    says: str
    check: Callable[[Book, Step], None]


PROMISES: dict[str, Promise] = {}


def _promise(check: Callable[[Book, Step], Iterable[str] | None]) -> None:
    """Register *check*, which yields what is wrong."""
    name = check.__name__.strip("_").replace("_", " ")

    def run(book: Book, step: Step) -> None:
        for wrong in check(book, step) or ():
            raise Violation(name, wrong)

    PROMISES[name] = Promise(name, check.__doc__ or "", run)


def _is_victim(step: Step, lowered: Lowered) -> bool:
    return lowered.key in step.announced_as("evicted")


def _drained(step: Step) -> list[InstanceKey]:
    """Return what began to drain in this step, other than by hand."""
    by_hand = (
        step.event.instance if isinstance(step.event, events.Unload | events.PutToSleep) else None
    )
    return [
        each.instance
        for each in step.announced
        if each.state is InstanceState.DRAINING
        and step.before.get(each.instance) is not InstanceState.DRAINING
        and each.instance != by_hand
    ]


# 1


@_promise
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


@_promise
def the_ledger_agrees(book: Book, step: Step) -> Iterable[str]:
    """Each worker is charged until it has gone, with no less and no more than it may be."""
    ledger = book.scheduler.ledger
    for pool in book.pools:
        low = sum(worker.low.get(pool, 0) for worker in book.workers.values())
        high = sum(worker.high.get(pool, 0) for worker in book.workers.values())
        if not low <= ledger.charged(pool) <= high:
            yield f"{ledger.charged(pool)} is charged of {pool}; it must be from {low} to {high}"


@_promise
def memory_taken_by_others_is_made_up_for(book: Book, step: Step) -> Iterable[str]:
    """Where others grow so that we hold too much, idle instances go, and only idle ones."""
    if not isinstance(step.event, events.MemoryObserved) or book.closing:
        return
    for pool, reading in book.pools.items():
        staying = [
            worker
            for key, worker in book.workers.items()
            if worker.phase not in ("stopping", "falling_asleep")
            and book.state(key) is not InstanceState.DRAINING
        ]
        over = sum(worker.low.get(pool, 0) for worker in staying) - reading.capacity_bytes
        if over <= 0:
            continue
        for key, worker in book.workers.items():
            is_idle = worker.phase == "ready" and not worker.leases
            if (
                is_idle
                and worker.low.get(pool, 0) > 0
                and not book.agreed(key).pinned
                and not book.wants(key)
            ):
                yield f"{key} is idle and stays though {pool} is {over} short"


# 2


@_promise
def a_leased_instance_is_never_a_victim(book: Book, step: Step) -> Iterable[str]:
    """Nobody sleeps, stops or is killed as long as a lease is out."""
    for each in step.lowered:
        if each.leases:
            yield f"{each.key} got {each.action} with leases {sorted(each.leases)}"


@_promise
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


@_promise
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


@_promise
def one_that_waits_blocks_no_other(book: Book, step: Step) -> Iterable[str]:
    """What fits beside all that is promised to others is started at once."""
    if book.closing or not book.requests:
        return
    room = Room(book, at_most=False)
    missing = stuck(book)
    if not missing:
        return
    for key in missing:
        if key in book.workers or not book.prices.get(key) or _had_trouble(book, key):
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


@_promise
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
        if key in book.workers or not prices or _had_trouble(book, key):
            continue
        if any(len(one.wanted) > 1 for one in asked):
            continue
        theirs = book.wants(each.key)
        if not theirs or ranking(book, asked) >= ranking(book, theirs):
            continue
        if Room.as_admitted(book, each).fits(key, prices[0]):
            yield f"{each.key} was started before {key}, whose turn it was"


# 5


@_promise
def no_more_are_evicted_than_needed(book: Book, step: Step) -> Iterable[str]:
    """Each victim is needed: without it, what waits would not fit."""
    victims = [each for each in step.lowered if _is_victim(step, each) and not each.overdrawn]
    if not victims:
        return
    if any(_had_trouble(book, key) for key in stuck(book)) or step.announced_as("load_failed"):
        return
    for victim in victims:
        # As if this one stayed as it was, and all others that stop were gone.
        room = Room(book, at_most=False, but_leaving_are_gone=True)
        if victim.worker.phase == "stopping":
            room.take_worker(victim.key, victim.worker, was=victim.phase)
        for key in stuck(book):
            room.take(needs_of(book, key))
        if not room.is_oversold:
            yield f"{victim.key} was evicted though all that waits fits beside it"


@_promise
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


@_promise
def what_never_fits_is_refused_at_once(book: Book, step: Step) -> Iterable[str]:
    """With what it needs and what there is; and it costs nobody anything."""
    for asked, failure in step.rejected:
        if failure.kind == "ModelTooLargeError":
            if any(_fits_alone(book, key) for key in asked.keys) and len(asked.keys) == 1:
                yield f"request {asked.id} was refused as too large though it fits"
            if not failure.fields.get("devices"):
                yield f"the refusal of request {asked.id} does not say what is lacking"
            gone = [each.key for each in step.lowered if _is_victim(step, each)]
            if not book.requests and gone:
                yield f"{gone[0]} had to go for a request that never fits"
    if book.closing:
        return
    for asked in book.requests.values():
        told = isinstance(step.event, events.Request) and step.event.id == asked.id
        priced = step.event.instance if isinstance(step.event, events.Priced) else None
        for key in asked.keys:
            known = key not in book.workers and book.prices.get(key)
            if (told or key == priced) and known and not _fits_alone(book, key):
                yield f"request {asked.id} waits for {key}, which never fits"


@_promise
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


# 7


@_promise
def what_is_resident_is_served_first(book: Book, step: Step) -> Iterable[str]:
    """Busy ones drain only for somebody who is overdue; idle ones stay for their least time."""
    drained = _drained(step)
    overdue = [asked for asked in book.requests.values() if book.is_overdue(asked)]
    if drained and not overdue:
        yield f"{drained[0]} drains though nobody has waited for long"
    if not book.limits.min_resident_seconds or overdue or step.announced_as("load_failed"):
        return
    for each in step.lowered:
        settled = each.worker.ready_at + book.limits.min_resident_seconds
        was_for_room = _is_victim(step, each) and not each.overdrawn
        if was_for_room and each.phase == "ready" and step.now < settled:
            yield f"{each.key} was evicted at {step.now}, before {settled}"


@_promise
def room_is_made_where_it_can_be(book: Book, step: Step) -> Iterable[str]:
    """While nothing moves, nobody waits for whom idle instances could make room."""
    if book.closing or not book.requests or book.price_wanted:
        return
    states = {book.state(key) for key in book.workers}
    if not states <= {InstanceState.LOADED, InstanceState.SLEEPING}:
        return
    for key in stuck(book):
        if key in book.workers or key not in book.prices or _had_trouble(book, key):
            continue
        if not any(len(asked.wanted) == 1 for asked in book.wants(key)):
            continue
        room = Room(book, at_most=False)
        for other, worker in book.workers.items():
            if other != key and can_be_freed(book, step, other, worker):
                room.give_back(other, worker, high=True)
        if any(room.fits(key, price) for price in book.prices[key] or (None,)):
            yield f"{key} waits, nothing moves, and idle ones could make room"


# 8


@_promise
def failures_cool_down(book: Book, step: Step) -> Iterable[str]:
    """All who wait hear of a failed load; it is tried again only after a growing pause."""
    event = step.event
    if isinstance(event, events.LoadFailed):
        trouble = book.trouble.get(event.instance)
        told = [asked for asked, failure in step.rejected if failure == event.failure]
        if trouble is not None and trouble.second_chance and told:
            yield f"request {told[0].id} was refused though {event.instance} is tried once more"
        if trouble is not None and trouble.until > step.now and book.wants(event.instance):
            yield f"somebody still waits for {event.instance}, which failed"
    for asked, failure in step.rejected:
        if failure.kind == "ModelCoolingDownError":
            if not any(_cools_down(book, key) for key in asked.keys):
                yield f"request {asked.id} was refused though nothing cools down"
            if not 0 < failure.fields.get("retry_after_seconds", 0) <= 300:
                yield f"request {asked.id} was not told when to ask again"
    for each in step.admitted:
        if _cools_down(book, each.key):
            yield f"{each.key} was started while it cools down"
    if isinstance(event, events.Request) and not book.closing:
        asked_now = book.requests.get(event.id)
        if asked_now is not None and any(_cools_down(book, key) for key in asked_now.keys):
            yield f"request {event.id} waits for what cools down"


# 9


@_promise
def steps_go_down_the_ladder(book: Book, step: Step) -> Iterable[str]:
    """Only what is awake and unused falls asleep; a victim goes to the step that was said."""
    for each in step.lowered:
        if isinstance(each.action, actions.Sleep):
            if each.phase != "ready":
                yield f"{each.key} was told to sleep while it was {each.phase}"
            terms = book.agreed(each.key)
            if _is_victim(step, each) and each.action.level != terms.evict_to:
                yield f"{each.key} was evicted to {each.action.level}, not to {terms.evict_to}"
        elif isinstance(each.action, actions.Stop) and each.phase == "stopping":
            yield f"{each.key} was told to stop twice"


# 10


@_promise
def a_crash_ends_leases_and_nothing_else(book: Book, step: Step) -> Iterable[str]:
    """Whoever used the worker is told that it died; nobody else loses anything."""
    if not isinstance(step.event, events.WorkerExited):
        return
    told = [held for held, failure in step.revoked if failure.kind == "WorkerDiedError"]
    for held in step.lost:
        if held not in told:
            yield f"a lease of {held.key} outlived its worker"
    for held, failure in step.revoked:
        if held not in step.lost and failure.kind == "WorkerDiedError":
            yield f"a lease of {held.key} was ended for a crash of {step.event.instance}"


# The sharing of instances


@_promise
def pinned_by_one_is_pinned_for_all(book: Book, step: Step) -> Iterable[str]:
    """A victim is pinned by none of the models that use it."""
    victims = [each.key for each in step.lowered if _is_victim(step, each)]
    for key in (*victims, *_drained(step)):
        if book.agreed(key).pinned:
            yield f"{key} is pinned and had to go"


@_promise
def groups_add_up(book: Book, step: Step) -> Iterable[str]:
    """Two members of an exclusive group are never resident at the same time."""
    for each in step.admitted:
        if each.rivals:
            yield f"{each.key} was admitted beside {each.rivals[0]}, of the same group"


@_promise
def idle_limits_are_kept(book: Book, step: Step) -> Iterable[str]:
    """The longest of those who share; the latest ``keep_alive`` goes before them."""
    for key, worker in book.workers.items():
        is_awake = worker.phase == "ready" and not worker.leases
        if (not is_awake and worker.phase != "asleep") or book.wants(key):
            continue
        due = idle_due(book, key, worker)
        if step.now > due and book.state(key) is not InstanceState.DRAINING:
            yield f"{key} is still {worker.phase} though its time was {due}"


@_promise
def nobody_goes_without_a_reason(book: Book, step: Step) -> Iterable[str]:
    """What sleeps or stops was asked to, was idle for its time, is evicted, or comes back."""
    if book.closing:
        return
    event = step.event
    for each in step.lowered:
        if isinstance(each.action, actions.Kill) or _is_victim(step, each):
            continue
        if each.phase in ("loading", "waking", "stopping"):
            continue
        if isinstance(event, events.Unload | events.PutToSleep) and event.instance == each.key:
            continue
        if step.before.get(each.key) is InstanceState.DRAINING:
            continue
        moves = each.worker.price is not None and each.worker.price.placement.degraded
        if moves or (each.phase == "asleep" and book.wants(each.key)):
            continue
        if step.now < idle_due(book, each.key, each.worker, phase=each.phase):
            yield f"{each.key} got {each.action} for no reason"


@_promise
def an_instance_ends_with_its_last_model(book: Book, step: Step) -> Iterable[str]:
    """To unload one model of several detaches that one only."""
    event = step.event
    if not isinstance(event, events.Unload):
        return
    left = book.attached.get(event.instance, set()) - {event.model}
    for each in step.lowered:
        if left and each.key == event.instance and not _is_victim(step, each):
            if step.now < idle_due(book, each.key, each.worker, phase=each.phase):
                yield f"{event.instance} ended with {event.model} though {left} use it"


# Time, guesses, the queue, the end


@_promise
def the_timer_rings_in_time(book: Book, step: Step) -> Iterable[str]:
    """No deadline passes unnoticed, and no timer rings twice for nothing."""
    if isinstance(step.event, events.Tick) and book.timer is not None and book.timer <= step.now:
        yield f"the next tick is wanted for {book.timer}, which is past"
    if book.closing:
        return
    dues = [held.since + book.limits.max_lease_seconds for held in book.leases.values()]
    oldest: dict[frozenset[InstanceKey], float] = {}
    for asked in book.requests.values():
        dues.append(book.deadline(asked))
        wanted = frozenset(asked.wanted)
        oldest[wanted] = min(asked.since, oldest.get(wanted, asked.since))
    dues += [since + book.limits.max_wait_seconds for since in oldest.values()]
    for key, worker in book.workers.items():
        if (worker.phase == "ready" and not worker.leases) or worker.phase == "asleep":
            if book.state(key) is not InstanceState.DRAINING and not book.wants(key):
                dues.append(idle_due(book, key, worker))
    ahead = [due for due in dues if step.now < due < float("inf")]
    if ahead and (book.timer is None or book.timer > min(ahead)):
        yield f"the timer is {book.timer}, and something is due at {min(ahead)}"


@_promise
def a_guess_costs_nobody_anything(book: Book, step: Step) -> Iterable[str]:
    """A predicted model is loaded only into free room, and while nobody waits."""
    if isinstance(step.event, events.Predicted):
        gone = [each.key for each in step.lowered if each.phase in ("ready", "asleep")]
        if gone:
            yield f"{gone[0]} had to go for a guess"
        if step.admitted and book.requests:
            yield f"{step.admitted[0].key} was loaded on a guess while others wait"


@_promise
def the_queue_has_its_limits(book: Book, step: Step) -> Iterable[str]:
    """No more wait than may; nobody is refused for others before that."""
    limits = book.limits
    if limits.max_queue and len(book.requests) > limits.max_queue:
        yield f"{len(book.requests)} requests wait"
    for asked, failure in step.rejected:
        if failure.kind == "QueueFullError":
            full = 0 < limits.max_queue <= len(step.waiting)
            per_model = limits.max_queue_per_model
            most = max(sum(key in other.wanted for other in step.waiting) for key in asked.keys)
            if not full and not 0 < per_model <= most:
                yield f"request {asked.id} was refused though the queue is not full"


@_promise
def nothing_happens_after_the_end(book: Book, step: Step) -> Iterable[str]:
    """After ``Shutdown`` everybody has an answer, every worker ends, and nothing starts."""
    if not book.closing:
        return
    if step.admitted or step.granted or book.requests:
        yield "something was granted or started, or somebody was left without an answer"
    if any(worker.phase != "stopping" for worker in book.workers.values()) or book.leases:
        yield "a worker was left running"


def idle_due(book: Book, key: InstanceKey, worker: Worker, *, phase: str | None = None) -> float:
    """Return when an instance that nobody uses is to go down a step."""
    kept = book.keep_until.get(key)
    if kept:
        return max(kept.values())
    terms = book.agreed(key)
    limits = [terms.unload_idle_seconds]
    if (phase or worker.phase) == "ready":
        limits.append(terms.sleep_idle_seconds)
    return min((worker.idle_since + limit for limit in limits if limit >= 0), default=float("inf"))


def _had_trouble(book: Book, key: InstanceKey) -> bool:
    trouble = book.trouble.get(key)
    return trouble is not None and trouble.second_chance


def _cools_down(book: Book, key: InstanceKey) -> bool:
    trouble = book.trouble.get(key)
    return trouble is not None and book.now < trouble.until


def _fits_alone(book: Book, key: InstanceKey) -> bool:
    prices: tuple[Price, ...] = book.prices.get(key, ())
    return not prices or any(_fits(price.bytes_by_pool, book) for price in prices)


def _fits(sizes: Mapping[str, int], book: Book) -> bool:
    return all(
        pool not in book.pools or size <= book.pools[pool].capacity_bytes
        for pool, size in sizes.items()
    )
