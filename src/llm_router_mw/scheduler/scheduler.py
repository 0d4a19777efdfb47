"""Decides who is loaded: a pure state machine, events in, actions out.

No awaits, no clock, no I/O. The same code runs in production, under property tests and in the
simulator. It holds these promises:

* slot and memory are reserved in the step that starts a load, and given back when the worker has
  exited, or has told what it freed;
* a leased instance is never a victim, and a lease is granted in the step that sees readiness;
* requests for one cold instance cause one load, and a load that nobody waits for is aborted;
* one model that waits for room never blocks another that does not need it;
* a request that waited ``max_wait_seconds`` for other work makes busy victims drain.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from llm_router_mw.errors import (
    ModelLoadError,
    ModelUnloadedError,
    RouterNotRunningError,
    WorkerDiedError,
)
from llm_router_mw.faults import Faults
from llm_router_mw.memory.ledger import Ledger
from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.scheduler import actions, events
from llm_router_mw.scheduler.demand import SLOTS, WORKERS, group_resource
from llm_router_mw.scheduler.desk import Desk
from llm_router_mw.scheduler.forecast import instance_place, request_place
from llm_router_mw.scheduler.idleness import Idleness
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.queue import Queue, Ticket
from llm_router_mw.scheduler.residents import Residents
from llm_router_mw.scheduler.room import Room
from llm_router_mw.scheduler.states import (
    ABSENT,
    COMING_UP,
    DOWNLOADING,
    DRAINING,
    FALLING_ASLEEP,
    LOADED,
    LOADING,
    SLEEPING,
    STOPPING,
    WAKING,
)
from llm_router_mw.scheduler.terms import NOTHING_SAID
from llm_router_mw.scheduler.timers import Timers
from llm_router_mw.scheduler.victims import Trusted
from llm_router_mw.types import Failure, InstanceKey, QueuePlace

_AT_REST = frozenset({LOADED, DRAINING, SLEEPING})
"""States in which what a process holds is no more and no less than it needs."""


class Scheduler:
    """The single owner of instances' states, leases, the queue and the ledger."""

    def __init__(
        self, policy: EvictionPolicy, limits: Limits, faults: Faults | None = None
    ) -> None:
        """*policy* chooses victims; where it fails, *faults* is told, and LRU chooses them."""
        self._limits = limits
        self._actions: list[actions.Action] = []
        self.ledger = Ledger()
        """Who is charged for what; only to be read."""
        if limits.models_max:
            self.ledger.limit(SLOTS, limits.models_max)
        if limits.workers_max:
            self.ledger.limit(WORKERS, limits.workers_max)
        self._queue = Queue()
        self._timers = Timers()
        self._timer: float | None = None
        self._residents = Residents(self.ledger, self._do)
        self._idleness = Idleness(self._residents, self._queue, self._timers)
        self._desk = Desk(
            limits,
            self.ledger,
            self._residents,
            self._queue,
            self._timers,
            self._do,
            on_idle=self._became_idle,
            on_left=self._ticket_left,
        )
        self._room = Room(
            Trusted(policy, faults or Faults()),
            limits,
            self.ledger,
            self._residents,
            self._queue,
            self._timers,
            self._do,
            on_spared=self._spared,
        )
        self._look_for_room = False
        """Whether something happened that may let a ticket go on."""
        self._closing = False
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            events.Request: self._on_request,
            events.Cancelled: self._on_cancelled,
            events.Released: self._on_released,
            events.Unload: self._on_unload,
            events.PutToSleep: self._on_put_to_sleep,
            events.Predicted: self._on_predicted,
            events.Priced: self._on_priced,
            events.PriceFailed: self._on_price_failed,
            events.Downloaded: self._on_downloaded,
            events.DownloadFailed: self._on_download_failed,
            events.Loaded: self._on_loaded,
            events.LoadFailed: self._on_load_failed,
            events.Deferred: self._on_deferred,
            events.Slept: self._on_slept,
            events.Woke: self._on_woke,
            events.WorkerExited: self._on_worker_exited,
            events.MemoryObserved: self._on_memory_observed,
            events.Held: self._on_held,
            events.Catalogued: self._on_catalogued,
            events.Tick: self._on_tick,
            events.Shutdown: self._on_shutdown,
        }

    # What monitoring may ask

    def instance(self, key: InstanceKey) -> Instance | None:
        """Return what is known of *key*; only to be read."""
        return self._residents.get(key)

    def instances(self) -> Iterator[Instance]:
        """Return all instances that were ever asked for; only to be read."""
        return self._residents.all()

    def is_pinned(self, model: str) -> bool:
        """Tell whether *model* was said to be never evicted."""
        return self._residents.terms.get(model, NOTHING_SAID).pinned

    def waiting(self, key: InstanceKey) -> int:
        """Return how many requests wait for *key*."""
        return self._queue.waiting(key)

    def queue_place(self, request_id: int) -> QueuePlace | None:
        """Return where a request stands in the queue; None if it does not wait."""
        return request_place(self._queue, self._residents, request_id)

    def place_of(self, key: InstanceKey) -> QueuePlace | None:
        """Return where those stand who wait for *key*; None if nobody does."""
        return instance_place(self._queue, self._residents, key)

    @property
    def total_waiting(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    # The one way in

    def decide(self, event: events.Event, now: float) -> list[actions.Action]:
        """Take *event* in and return what is to be done about it."""
        self._handlers[type(event)](event, now)
        self._desk.refuse_late(now)
        for thing in self._timers.due(now):
            self._heard(thing, now)
        while self._look_for_room and not self._closing:
            # Again only if somebody who drained is spared, since a ticket got its room elsewhere.
            self._look_for_room = False
            self._room.make(now)
        # First: a load that begins in this step may need what is given back.
        if shed := self.ledger.shed():
            self._actions[:0] = [actions.Shed(*each) for each in shed]
        self._set_timer()
        decided, self._actions = self._actions, []
        return decided

    def _do(self, action: actions.Action) -> None:
        self._actions.append(action)

    # Requests and leases

    def _on_request(self, event: events.Request, now: float) -> None:
        ticket = self._desk.request(event, now)
        if ticket is not None:
            for key in ticket.instances:
                self._fetch(self._residents.known(key))
            self._look_for_room |= self._room.may_help(ticket)

    def _on_cancelled(self, event: events.Cancelled, now: float) -> None:
        self._desk.cancel(event.id, now)

    def _on_released(self, event: events.Released, now: float) -> None:
        self._desk.release(event.lease, now)

    def _became_idle(self, instance: Instance, now: float) -> None:
        if instance.state is DRAINING:
            # What that will free has been promised since it began to drain.
            self._residents.lower(instance, instance.next_step, "its last request has finished")
        elif instance.state is LOADED:
            self._idleness.watch(instance)
            self._look_for_room |= (
                self._queue.has_unserved
                or self.ledger.is_overdrawn
                or self._room.is_poorly_placed(instance)
            )

    def _spared(self, instance: Instance, now: float) -> None:
        self._desk.grant_all_for(instance, now)
        self._look_for_room = True

    def _ticket_left(self, ticket: Ticket, now: float) -> None:
        # By itself: to leave may spare others, and so say that one is to look.
        was_promised = self._room.left(ticket, now)
        self._look_for_room |= was_promised or self._queue.has_unserved
        for key in ticket.instances:
            instance = self._residents.known(key)
            if instance.state is LOADING and not self._is_wanted(instance):
                self._residents.stop(instance, "nobody waits for it any more")
                self._look_for_room = True
            elif instance.is_idle or instance.state is SLEEPING:
                self._idleness.watch(instance)

    def _is_wanted(self, instance: Instance) -> bool:
        return self._queue.wants(instance.key) or instance.on_guess

    # By hand

    def _on_unload(self, event: events.Unload, now: float) -> None:
        instance = self._residents.known(event.instance)
        self._residents.forgive(instance)
        companions = instance.terms.companions
        self._residents.detach(instance, event.model)
        for companion in companions:
            self._residents.known(companion.instance).keep_until.pop(event.model, None)
        self._idleness.watch_company(companions)  # those who are left may need less
        if instance.has_worker and not instance.leases:
            self._idleness.watch(instance)  # those who are left may be less patient
        self._look_for_room = True  # and in fewer groups
        if instance.state is DOWNLOADING:
            self._stop_download(instance, event.model, now)
            return
        others = (instance.models | self._queue.names_for(instance.key)) - {event.model}
        if others or not instance.has_worker:
            return
        error = ModelUnloadedError(f"model {event.model!r} was unloaded")
        if event.force:
            self._desk.revoke_all(instance, error, now)
        if instance.leases:
            self._residents.drain(instance, "stop", None, "unloaded by hand, when it is idle")
        elif instance.state is not STOPPING:
            self._residents.stop(instance, "unloaded by hand")
        self._desk.reject_all_for(instance, error.to_failure(), now)
        if event.force:
            self._residents.kill(instance)

    def _stop_download(self, instance: Instance, model: str, now: float) -> None:
        if self._queue.names_for(instance.key) - {model}:
            return
        self._residents.cancel_download(instance, "its download was stopped by hand")
        error = ModelUnloadedError(f"the download of model {model!r} was stopped")
        self._desk.reject_all_for(instance, error.to_failure(), now)

    def _on_put_to_sleep(self, event: events.PutToSleep, now: float) -> None:
        instance = self._residents.get(event.instance)
        if instance is None or instance.state is not LOADED:
            return
        if instance.leases:
            reason = "falls asleep when it is idle, as asked by hand"
            self._residents.drain(instance, event.level, None, reason)
        else:
            self._residents.lower(instance, event.level, "put to sleep by hand")
        self._look_for_room = True

    def _on_predicted(self, event: events.Predicted, now: float) -> None:
        if not self._closing and self._queue.is_empty:
            self._room.guess(self._residents.known(event.instance), event.model)

    # Up

    def _on_priced(self, event: events.Priced, now: float) -> None:
        instance = self._residents.known(event.instance)
        # One that sleeps is woken all the same: then it is seen what that brings.
        instance.is_missing = event.is_missing and not instance.has_worker
        if self._residents.priced(instance, event.prices):
            self._room.forget_end()
        self._desk.reject_too_large(instance, now)
        self._fetch(instance)
        waiting = self._queue.of(instance.key)
        self._look_for_room |= not waiting or any(map(self._room.may_help, waiting))

    def _on_price_failed(self, event: events.PriceFailed, now: float) -> None:
        instance = self._residents.known(event.instance)
        instance.price_asked = False
        self._desk.reject_all_for(instance, event.failure, now)

    def _fetch(self, instance: Instance) -> None:
        """Have the files of *instance* fetched if somebody waits for it: it may fit.

        The download goes on when they leave: it costs no memory, and may take longer than anybody
        waits.
        """
        is_wanted = instance.state in ABSENT and self._queue.wants(instance.key)
        if instance.is_missing and is_wanted and not self._closing:
            self._residents.download(instance)

    def _on_downloaded(self, event: events.Downloaded, now: float) -> None:
        instance = self._residents.downloading(event.instance, event.generation)
        if instance is not None:
            self._residents.downloaded(instance)
            if self._queue.wants(instance.key):
                self._residents.ask_price(instance)

    def _on_download_failed(self, event: events.DownloadFailed, now: float) -> None:
        instance = self._residents.downloading(event.instance, event.generation)
        if instance is not None:
            self._residents.download_failed(instance, event.failure, now)
            self._desk.reject_all_for(instance, event.failure, now)

    def _on_loaded(self, event: events.Loaded, now: float) -> None:
        instance = self._residents.current(event.instance, event.generation)
        if instance is not None and instance.state is LOADING:
            instance.load_seconds = event.load_seconds
            self._ready(instance, event.measured, now, f"ready after {event.load_seconds:.2f} s")

    def _on_woke(self, event: events.Woke, now: float) -> None:
        instance = self._residents.current(event.instance, event.generation)
        if instance is not None and instance.state is WAKING:
            self._ready(instance, event.measured, now, f"awake after {event.wake_seconds:.2f} s")

    def _ready(
        self, instance: Instance, measured: Mapping[str, int] | None, now: float, reason: str
    ) -> None:
        self._residents.ready(instance, measured, now, reason)
        self._desk.grant_all_for(instance, now)
        if not instance.leases:
            self._idleness.watch(instance)
        # Nobody gains by one that is busy at once and takes what was reserved, unless it can be
        # made to drain.
        nobody_gains = instance.leases and measured is None and not self._queue.has_overdue
        self._look_for_room |= not nobody_gains

    def _on_load_failed(self, event: events.LoadFailed, now: float) -> None:
        instance = self._residents.current(event.instance, event.generation)
        if instance is None or instance.state not in COMING_UP:
            return
        if event.out_of_memory and not instance.was_retried:
            self._room.free_more_for(instance, event.failure)
        else:
            self._failed(instance, event.failure, now)

    def _failed(self, instance: Instance, failure: Failure, now: float) -> None:
        self._residents.load_failed(instance, failure, now)
        self._desk.reject_all_for(instance, failure, now)

    def _on_deferred(self, event: events.Deferred, now: float) -> None:
        instance = self._residents.current(event.instance, event.generation)
        if instance is None or instance.state not in COMING_UP:
            return
        self._room.hold_back(instance, now)
        if instance.state is LOADING:
            self._gone(instance, event.reason, now)
            return
        self._residents.sleeps_on(instance, event.reason)
        self._idleness.watch(instance)
        self._look_for_room = True

    # Down

    def _on_slept(self, event: events.Slept, now: float) -> None:
        instance = self._residents.current(event.instance, event.generation)
        if instance is not None and instance.state is FALLING_ASLEEP:
            reason = f"asleep after {event.sleep_seconds:.2f} s"
            self._residents.slept(instance, event.measured, reason)
            self._idleness.watch(instance)
            self._idleness.watch_company(instance.terms.companions)
            self._look_for_room = True

    def _on_worker_exited(self, event: events.WorkerExited, now: float) -> None:
        instance = self._residents.current(event.instance, event.generation)
        if instance is None:
            return
        was_leaving = instance.state is STOPPING
        if instance.state in COMING_UP:
            error = ModelLoadError(
                f"the worker ended while it loaded {instance.key}: {event.reason}"
            )
            self._failed(instance, error.to_failure(), now)
        died = instance.state is not STOPPING
        self._residents.dying(instance)
        if instance.leases:
            error_for_all = WorkerDiedError(
                f"the worker of this model {event.reason}; ask again to reload it"
            )
            self._desk.revoke_all(instance, error_for_all, now)
        self._gone(instance, event.reason, now, was_leaving=was_leaving, died=died)

    def _gone(
        self,
        instance: Instance,
        reason: str,
        now: float,
        *,
        was_leaving: bool = False,
        died: bool = False,
    ) -> None:
        self._residents.gone(instance, reason, died=died)
        if not self._closing:
            self._idleness.watch_company(instance.terms.companions)
            self._room.came_free(instance)
            # By itself: to hand over may spare others, and so say that one is to look.
            is_handed_over = was_leaving and self._room.hand_over(instance, now)
            self._look_for_room |= not is_handed_over

    # Memory and terms

    def _on_memory_observed(self, event: events.MemoryObserved, now: float) -> None:
        self.ledger.observe(event.pools)
        for key, seen in event.instances.items():
            instance = self._residents.get(key)
            if instance is not None and instance.state in _AT_REST:
                self._residents.observe(instance, seen)
        self._look_for_room = True

    def _on_held(self, event: events.Held, now: float) -> None:
        self.ledger.hold(event.holder, event.bytes_by_pool, sheddable=event.sheddable)
        self._look_for_room |= not self._queue.is_empty or self.ledger.is_overdrawn

    def _on_catalogued(self, event: events.Catalogued, now: float) -> None:
        self._residents.agree(event.terms)
        for terms in event.terms.values():
            for group in terms.exclusive_groups:
                self.ledger.limit(group_resource(group), 1)
        for instance in self._residents:
            self._idleness.watch(instance)
        self._look_for_room = True

    # Time

    def _on_tick(self, event: events.Tick, now: float) -> None:
        self._timer = None

    def _heard(self, thing: Hashable, now: float) -> None:
        match thing:
            case "leases":
                self._desk.revoke_expired(now)
            case ("waiter", int(request_id)):
                self._desk.time_is_up(request_id, now)
            case ("ticket", int(ticket_id)):
                late = self._desk.hurry(ticket_id, now)
                self._look_for_room |= late is not None and self._room.may_help(late)
            case ("idle", InstanceKey() as key):
                self._look_for_room |= self._idleness.has_been(self._residents.known(key), now)
            case _:
                self._look_for_room = True

    def _set_timer(self) -> None:
        at_seconds = self._timers.next_seconds
        # One that rings too early does no harm, and setting it again has a cost.
        if at_seconds is not None and (self._timer is None or at_seconds < self._timer):
            self._timer = at_seconds
            self._do(actions.SetTimer(at_seconds))

    # The end

    def _on_shutdown(self, event: events.Shutdown, now: float) -> None:
        self._closing = True
        self._desk.close(now)
        for instance in self._residents:
            self._desk.revoke_all(instance, RouterNotRunningError("the router is closing"), now)
            if instance.state is not STOPPING:
                self._residents.stop(instance, "the router is closing")
        for instance in self._residents.all():
            if instance.state is DOWNLOADING:
                self._residents.cancel_download(instance, "the router is closing")
