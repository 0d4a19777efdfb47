"""The promises about how long things last: who goes when, why, and who hears of it."""

from __future__ import annotations

from collections.abc import Iterable

from llm_router_mw.scheduler import actions, events
from llm_router_mw.types import InstanceKey, InstanceState
from tests.support.scheduler_book import Book
from tests.support.scheduler_promise import (
    cools_down,
    drained,
    had_trouble,
    idle_due,
    is_victim,
    promise,
)
from tests.support.scheduler_records import Step
from tests.support.scheduler_room import Room, can_be_freed, stuck

# 7


@promise
def what_is_resident_is_served_first(book: Book, step: Step) -> Iterable[str]:
    """Busy ones drain only for somebody who is overdue; idle ones stay for their least time."""
    draining = drained(step)
    overdue = [asked for asked in book.requests.values() if book.is_overdue(asked)]
    if draining and not overdue:
        yield f"{draining[0]} drains though nobody has waited for long"
    if not book.limits.min_resident_seconds or overdue or step.announced_as("load_failed"):
        return
    for each in step.lowered:
        settled = each.worker.ready_at + book.limits.min_resident_seconds
        was_for_room = is_victim(step, each) and not each.overdrawn
        if was_for_room and each.phase == "ready" and step.now < settled:
            yield f"{each.key} was evicted at {step.now}, before {settled}"


@promise
def room_is_made_where_it_can_be(book: Book, step: Step) -> Iterable[str]:
    """While nothing moves, nobody waits for whom idle instances could make room."""
    if book.closing or not book.requests or book.price_wanted:
        return
    states = {book.state(key) for key in book.workers}
    if not states <= {InstanceState.LOADED, InstanceState.SLEEPING}:
        return
    # Who is to be tried again keeps its place for a moment.
    if any(map(book.is_held_back, stuck(book))):
        return
    for key in stuck(book):
        if key in book.workers or key not in book.prices or had_trouble(book, key):
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


@promise
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
            if not any(cools_down(book, key) for key in asked.wanted):
                yield f"request {asked.id} was refused though nothing cools down"
            if not 0 < failure.fields.get("retry_after_seconds", 0) <= 300:
                yield f"request {asked.id} was not told when to ask again"
    for each in step.admitted:
        if cools_down(book, each.key):
            yield f"{each.key} was started while it cools down"
    if isinstance(event, events.Request) and not book.closing:
        asked_now = book.requests.get(event.id)
        if asked_now is not None and any(cools_down(book, key) for key in asked_now.keys):
            yield f"request {event.id} waits for what cools down"


# 9


@promise
def steps_go_down_the_ladder(book: Book, step: Step) -> Iterable[str]:
    """Only what is awake and unused falls asleep; a victim goes to the step that was said."""
    for each in step.lowered:
        if isinstance(each.action, actions.Sleep):
            if each.phase != "ready":
                yield f"{each.key} was told to sleep while it was {each.phase}"
            terms = book.agreed(each.key)
            if is_victim(step, each) and each.action.level != terms.evict_to:
                yield f"{each.key} was evicted to {each.action.level}, not to {terms.evict_to}"
        elif isinstance(each.action, actions.Stop) and each.phase == "stopping":
            yield f"{each.key} was told to stop twice"


# 10


@promise
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


@promise
def pinned_by_one_is_pinned_for_all(book: Book, step: Step) -> Iterable[str]:
    """A victim is pinned by none of the models that use it."""
    victims = [each.key for each in step.lowered if is_victim(step, each)]
    for key in (*victims, *drained(step)):
        if book.agreed(key).pinned:
            yield f"{key} is pinned and had to go"


@promise
def groups_add_up(book: Book, step: Step) -> Iterable[str]:
    """Two members of an exclusive group are never resident at the same time."""
    for each in step.admitted:
        if each.rivals:
            yield f"{each.key} was admitted beside {each.rivals[0]}, of the same group"


@promise
def who_needs_another_goes_with_it(book: Book, step: Step) -> Iterable[str]:
    """What must be resident beside another is not left alone when that is sent away."""
    event = step.event
    by_hand = event.instance if isinstance(event, events.Unload | events.PutToSleep) else None
    for each in step.lowered:
        is_chosen = is_victim(step, each) or step.before.get(each.key) is InstanceState.LOADED
        moves = each.worker.price is not None and each.worker.price.placement.degraded
        if book.closing or not is_chosen or each.phase != "ready" or each.key == by_hand or moves:
            continue
        for other, worker in book.workers.items():
            needs = {companion.instance for companion in book.agreed(other).companions}
            stays = worker.phase == "ready" and book.state(other) is not InstanceState.DRAINING
            if each.key in needs and stays:
                yield f"{other} stays, though {each.key} goes, which it needs"


@promise
def idle_limits_are_kept(book: Book, step: Step) -> Iterable[str]:
    """The longest of those who share; the latest ``keep_alive`` goes before them."""
    for key, worker in book.workers.items():
        is_awake = worker.phase == "ready" and not worker.leases
        if (not is_awake and worker.phase != "asleep") or book.wants(key):
            continue
        due = idle_due(book, key, worker)
        if worker.phase == "ready" and _is_kept_by_company(book, key):
            continue
        if step.now > due and book.state(key) is not InstanceState.DRAINING:
            yield f"{key} is still {worker.phase} though its time was {due}"


def _is_kept_by_company(book: Book, key: InstanceKey) -> bool:
    """Whether somebody needs *key* who stays, or has not gone yet."""
    if any(
        worker.phase in ("stopping", "falling_asleep")
        and key in {companion.instance for companion in book.agreed(other).companions}
        for other, worker in book.workers.items()
    ):
        return True
    return any(
        book.wants(other)
        or book.workers[other].leases
        or book.workers[other].phase != "ready"
        or book.now <= idle_due(book, other, book.workers[other])
        for other in book.company(key)
    )


@promise
def nobody_goes_without_a_reason(book: Book, step: Step) -> Iterable[str]:
    """What sleeps or stops was asked to, was idle for its time, is evicted, or comes back."""
    if book.closing:
        return
    event = step.event
    for each in step.lowered:
        if isinstance(each.action, actions.Kill) or is_victim(step, each):
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


@promise
def an_instance_ends_with_its_last_model(book: Book, step: Step) -> Iterable[str]:
    """To unload one model of several detaches that one only."""
    event = step.event
    if not isinstance(event, events.Unload):
        return
    left = book.attached.get(event.instance, set()) - {event.model}
    for each in step.lowered:
        if not left or each.key != event.instance or is_victim(step, each):
            continue
        if each.phase == "asleep" and book.wants(each.key):
            continue  # it only leaves for a place where there is room
        if step.now < idle_due(book, each.key, each.worker, phase=each.phase):
            yield f"{event.instance} ended with {event.model} though {left} use it"


# Time, guesses, the queue, the end


@promise
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
        is_awake = worker.phase == "ready" and not worker.leases
        stays = book.state(key) is InstanceState.DRAINING or book.wants(key)
        if (is_awake or worker.phase == "asleep") and not stays:
            dues.append(idle_due(book, key, worker))
    ahead = [due for due in dues if step.now < due < float("inf")]
    if ahead and (book.timer is None or book.timer > min(ahead)):
        yield f"the timer is {book.timer}, and something is due at {min(ahead)}"


@promise
def a_guess_costs_nobody_anything(book: Book, step: Step) -> Iterable[str]:
    """A predicted model is loaded only into free room, and while nobody waits."""
    if isinstance(step.event, events.Predicted):
        gone = [each.key for each in step.lowered if each.phase in ("ready", "asleep")]
        if gone:
            yield f"{gone[0]} had to go for a guess"
        if step.admitted and book.requests:
            yield f"{step.admitted[0].key} was loaded on a guess while others wait"


@promise
def the_queue_has_its_limits(book: Book, step: Step) -> Iterable[str]:
    """No more wait than may; nobody is refused for others before that."""
    limits = book.limits
    if limits.max_queue and len(book.requests) > limits.max_queue:
        yield f"{len(book.requests)} requests wait"
    for asked, failure in step.rejected:
        if failure.kind == "QueueFullError":
            full = 0 < limits.max_queue <= len(step.waiting)
            per_model = limits.max_queue_per_model
            most = max(sum(key in other.wanted for other in step.waiting) for key in asked.wanted)
            if not full and not 0 < per_model <= most:
                yield f"request {asked.id} was refused though the queue is not full"


@promise
def nothing_happens_after_the_end(book: Book, step: Step) -> Iterable[str]:
    """After ``Shutdown`` everybody has an answer, every worker ends, and nothing starts."""
    if not book.closing:
        return
    if step.admitted or step.granted or book.requests:
        yield "something was granted or started, or somebody was left without an answer"
    if any(worker.phase != "stopping" for worker in book.workers.values()) or book.leases:
        yield "a worker was left running"
