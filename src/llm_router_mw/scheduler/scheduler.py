"""Decides who is loaded: a pure state machine, events in, actions out.

No awaits, no clock, no I/O. The same code runs in production, under property tests and, later,
in a simulator. It holds these promises:

* a slot is reserved in the step that starts a load, and given back when the worker has exited;
* a leased instance is never a victim, and a lease is granted in the step that sees readiness;
* requests for one cold instance cause one load, and a load that nobody waits for is aborted;
* a request that waited ``max_wait_seconds`` for other work makes busy victims drain.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from llm_router_mw.errors import (
    InvalidRequestError,
    LeaseExpiredError,
    LLMRouterError,
    ModelCoolingDownError,
    ModelLoadError,
    ModelNotLoadedError,
    ModelUnloadedError,
    QueueFullError,
    QueueTimeoutError,
    RouterNotRunningError,
    WorkerDiedError,
)
from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.scheduler import actions, events
from llm_router_mw.scheduler.state import Instance, Lease, Waiter
from llm_router_mw.scheduler.victims import ranked
from llm_router_mw.types import EventKind, InstanceKey, InstanceState

_THERE = (InstanceState.LOADING, InstanceState.LOADED)
"""States in which nothing has to be started for a request."""


class Scheduler:
    """The single owner of instances' states, leases and the queue."""

    def __init__(
        self,
        policy: EvictionPolicy,
        *,
        models_max: int,
        max_queue: int,
        max_wait_seconds: float,
        queue_timeout_seconds: float,
        max_lease_seconds: float,
    ) -> None:
        self._policy = policy
        self._models_max = models_max
        self._max_queue = max_queue
        self._max_wait_seconds = max_wait_seconds
        self._queue_timeout_seconds = queue_timeout_seconds
        self._max_lease_seconds = max_lease_seconds
        self._instances: dict[InstanceKey, Instance] = {}
        self._queue: dict[int, Waiter] = {}
        """In order of arrival."""
        self._leases: dict[int, Lease] = {}
        self._next_lease = 1
        self._timer: float | None = None
        self._closing = False
        self._actions: list[actions.Action] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            events.Request: self._on_request,
            events.Cancelled: self._on_cancelled,
            events.Released: self._on_released,
            events.Unload: self._on_unload,
            events.Loaded: self._on_loaded,
            events.LoadFailed: self._on_load_failed,
            events.WorkerExited: self._on_worker_exited,
            events.Tick: self._on_tick,
            events.Shutdown: self._on_shutdown,
        }

    # What monitoring may ask

    def instance(self, key: InstanceKey) -> Instance | None:
        """Return what is known of *key*; only to be read."""
        return self._instances.get(key)

    def instances(self) -> Iterator[Instance]:
        """Return all instances that were ever asked for; only to be read."""
        return iter(self._instances.values())

    def waiting(self, key: InstanceKey) -> int:
        """Return how many requests wait for *key*."""
        # The copy is made in one step, so monitoring may ask from another thread.
        return sum(key in waiter.instances for waiter in list(self._queue.values()))

    # The one way in

    def decide(self, event: events.Event, now: float) -> list[actions.Action]:
        """Take *event* in and return what is to be done about it."""
        self._handlers[type(event)](event, now)
        self._expire(now)
        self._grant(now)
        self._make_room(now)
        self._set_timer(now)
        decided, self._actions = self._actions, []
        return decided

    # Events

    def _on_request(self, request: events.Request, now: float) -> None:
        wanted = [self._known(key) for key in request.instances]
        for instance, model in zip(wanted, request.models, strict=True):
            if not request.hold:
                instance.forget_failure()  # asked for by hand: try now, whatever happened before
            refusal = self._refusal(instance, model, request, now)
            if refusal is not None:
                self._do(actions.Reject(request.id, refusal.to_failure()))
                return
        self._queue[request.id] = Waiter(
            request.id, request.instances, request.models, request.hold, now
        )

    def _refusal(
        self, instance: Instance, model: str, request: events.Request, now: float
    ) -> LLMRouterError | None:
        if self._closing:
            return RouterNotRunningError("the router is closing")
        if 0 < self._models_max < len(set(request.instances)):
            return InvalidRequestError(
                f"{len(set(request.instances))} models cannot be held at once: models_max is "
                f"{self._models_max}; ask for fewer or raise models_max",
                param="model",
            )
        if not request.autoload and instance.state not in _THERE:
            return ModelNotLoadedError(
                f"model {model!r} is not loaded and loading on demand is off; load it first"
            )
        if instance.failure is not None and now < instance.retry_at_seconds:
            return ModelCoolingDownError(
                f"model {model!r} failed to load ({instance.failure.message}); "
                f"it can be tried again in {instance.retry_at_seconds - now:.0f} s",
                retry_after_seconds=instance.retry_at_seconds - now,
            )
        full = 0 < self._max_queue <= len(self._queue)
        if full and instance.state is not InstanceState.LOADED:
            return QueueFullError(
                f"{len(self._queue)} requests wait already (max_queue); send it again later",
                retry_after_seconds=1.0,
            )
        return None

    def _on_cancelled(self, event: events.Cancelled, now: float) -> None:
        self._leave_queue(event.id)

    def _on_released(self, event: events.Released, now: float) -> None:
        self._end_lease(event.lease, now)

    def _on_unload(self, event: events.Unload, now: float) -> None:
        instance = self._known(event.instance)
        instance.forget_failure()
        if instance.state is InstanceState.FAILED:
            self._become(instance, InstanceState.UNLOADED, "its failure was cleared")
        instance.models.discard(event.model)
        others = (instance.models | self._names_waiting(instance.key)) - {event.model}
        if others or not instance.occupies_slot:
            return
        if event.force:
            self._revoke_all(instance, ModelUnloadedError(f"{event.model!r} was unloaded"), now)
        if instance.leases:
            instance.drain_for = None
            self._become(instance, InstanceState.DRAINING, "unloaded by hand, when it is idle")
        elif instance.state is not InstanceState.STOPPING:
            self._stop(instance, "unloaded by hand")
        for waiter in self._waiters_of(instance.key):
            self._reject(waiter, ModelUnloadedError(f"model {event.model!r} was unloaded"))
        if event.force:
            self._do(actions.Kill(instance.key, instance.generation))

    def _on_loaded(self, event: events.Loaded, now: float) -> None:
        instance = self._current(event.instance, event.generation)
        if instance is None or instance.state is not InstanceState.LOADING:
            return
        instance.forget_failure()
        instance.loaded_at_seconds = instance.last_used_seconds = now
        instance.load_seconds = event.load_seconds
        self._become(instance, InstanceState.LOADED, f"loaded in {event.load_seconds:.2f} s")

    def _on_load_failed(self, event: events.LoadFailed, now: float) -> None:
        instance = self._current(event.instance, event.generation)
        if instance is None or instance.state is not InstanceState.LOADING:
            return
        instance.failed(event.failure, now)
        # Not failed yet: the slot is free only when the worker has exited.
        self._become(instance, InstanceState.STOPPING, event.failure.message, kind="load_failed")
        for waiter in self._waiters_of(instance.key):
            self._leave_queue(waiter.id)
            self._do(actions.Reject(waiter.id, event.failure))

    def _on_worker_exited(self, event: events.WorkerExited, now: float) -> None:
        instance = self._current(event.instance, event.generation)
        if instance is None or not instance.occupies_slot:
            return
        if instance.state is InstanceState.LOADING:
            error = ModelLoadError(
                f"the worker ended while it loaded {instance.key}: {event.reason}"
            )
            self._on_load_failed(
                events.LoadFailed(
                    instance=instance.key, generation=event.generation, failure=error.to_failure()
                ),
                now,
            )
        died = instance.state is not InstanceState.STOPPING
        instance.state = InstanceState.STOPPING  # so that the end of its leases stops nothing
        self._revoke_all(instance, WorkerDiedError(f"the worker ended: {event.reason}"), now)
        instance.drain_for = None
        state = InstanceState.FAILED if instance.failure else InstanceState.UNLOADED
        kind: EventKind = "worker_died" if died else "status"
        self._become(instance, state, event.reason, kind=kind)

    def _on_tick(self, event: events.Tick, now: float) -> None:
        self._timer = None

    def _on_shutdown(self, event: events.Shutdown, now: float) -> None:
        self._closing = True
        for waiter in list(self._queue.values()):
            self._reject(waiter, RouterNotRunningError("the router is closing"))
        for instance in self._instances.values():
            self._revoke_all(instance, RouterNotRunningError("the router is closing"), now)
            if instance.occupies_slot and instance.state is not InstanceState.STOPPING:
                self._stop(instance, "the router is closing")

    # What follows from every event

    def _expire(self, now: float) -> None:
        for waiter in list(self._queue.values()):
            late = now >= waiter.since_seconds + self._queue_timeout_seconds
            if late and not self._is_on_its_way(waiter):
                self._reject(
                    waiter,
                    QueueTimeoutError(
                        f"no room for {', '.join(map(repr, waiter.models))} within "
                        f"{self._queue_timeout_seconds:g} s: all instances are busy",
                        retry_after_seconds=self._max_wait_seconds,
                    ),
                )
        for lease in list(self._leases.values()):
            if now >= lease.expires_at_seconds:
                self._revoke(
                    lease.id,
                    LeaseExpiredError(
                        f"the lease was held for more than {self._max_lease_seconds:g} s"
                    ),
                    now,
                )

    def _is_on_its_way(self, waiter: Waiter) -> bool:
        """Whether *waiter* has its room, and waits for nobody but the loading itself."""
        return all(self._instances[key].state in _THERE for key in waiter.instances)

    def _grant(self, now: float) -> None:
        for waiter in list(self._queue.values()):
            wanted = [self._instances[key] for key in waiter.instances]
            if all(instance.state is InstanceState.LOADED for instance in wanted):
                del self._queue[waiter.id]
                for instance, model in zip(wanted, waiter.models, strict=True):
                    instance.models.add(model)
                held = [self._new_lease(i, now) for i in wanted] if waiter.hold else []
                self._do(actions.Grant(waiter.id, tuple(held)))
                self._spare_drained_for(waiter.id)

    def _make_room(self, now: float) -> None:
        """Start what is wanted where a slot is free; else see that one becomes free.

        Slots that are free, and slots of instances that are leaving, go to requests in the order
        of their arrival, so nobody is overtaken; an instance that one of them needs is no victim
        for those behind it.
        """
        occupied = sum(instance.occupies_slot for instance in self._instances.values())
        free = self._models_max - occupied if self._models_max else sys.maxsize
        leaving = sum(instance.is_leaving for instance in self._instances.values())
        protected: set[InstanceKey] = set()
        for waiter in list(self._queue.values()):
            lacks_room = False
            for key in waiter.instances:
                instance = self._instances[key]
                if key in protected:
                    continue
                protected.add(key)
                if instance.occupies_slot and not instance.is_leaving:
                    continue
                if free > 0:
                    # A leaving instance that is wanted again keeps a slot open for its return.
                    free -= 1
                    if not instance.is_leaving:
                        self._start(instance)
                elif leaving > 0:
                    lacks_room = True
                    leaving -= 1
                else:
                    lacks_room = True
                    self._free_slot(waiter, protected | set(waiter.instances), now)
            if not lacks_room:
                leaving -= self._spare_drained_for(waiter.id)

    def _free_slot(self, waiter: Waiter, protected: set[InstanceKey], now: float) -> None:
        idle = [i.candidate() for i in self._instances.values() if i.is_idle]
        candidates = [candidate for candidate in idle if candidate.instance not in protected]
        names = ", ".join(map(repr, waiter.models))
        if candidates:
            victim = self._instances[ranked(self._policy, candidates, 1, now)[0].instance]
            reason = (
                f"evicted to make room for {names}: models_max is {self._models_max}, and it was "
                f"idle for {now - victim.last_used_seconds:.1f} s ({self._policy.name})"
            )
            self._stop(victim, reason, kind="evicted")
        elif now >= waiter.since_seconds + self._max_wait_seconds:
            busy = [i for i in self._instances.values() if i.is_busy and i.key not in protected]
            if busy:
                victim = min(busy, key=lambda instance: instance.last_used_seconds)
                victim.drain_for = waiter.id
                reason = f"drains to make room for {names}, which waited long enough"
                self._become(victim, InstanceState.DRAINING, reason)

    def _set_timer(self, now: float) -> None:
        times = [lease.expires_at_seconds for lease in self._leases.values()]
        for waiter in self._queue.values():
            times.append(waiter.since_seconds + self._max_wait_seconds)
            times.append(waiter.since_seconds + self._queue_timeout_seconds)
        # What is past has been acted upon, or waits for another event.
        at_seconds = min((time for time in times if time > now), default=None)
        if at_seconds != self._timer:
            self._timer = at_seconds
            self._do(actions.SetTimer(at_seconds))

    # Steps

    def _do(self, action: actions.Action) -> None:
        self._actions.append(action)

    def _known(self, key: InstanceKey) -> Instance:
        return self._instances.setdefault(key, Instance(key))

    def _current(self, key: InstanceKey, generation: int) -> Instance | None:
        instance = self._instances.get(key)
        return instance if instance is not None and instance.generation == generation else None

    def _waiters_of(self, key: InstanceKey) -> list[Waiter]:
        return [waiter for waiter in self._queue.values() if key in waiter.instances]

    def _names_waiting(self, key: InstanceKey) -> set[str]:
        """Return the names under which *key* is waited for."""
        return {
            model
            for waiter in self._waiters_of(key)
            for wanted, model in zip(waiter.instances, waiter.models, strict=True)
            if wanted == key
        }

    def _become(
        self,
        instance: Instance,
        state: InstanceState,
        reason: str,
        *,
        kind: EventKind = "status",
    ) -> None:
        instance.state = state
        self._do(actions.Announce(instance=instance.key, kind=kind, state=state, reason=reason))

    def _start(self, instance: Instance) -> None:
        instance.generation += 1
        instance.models = self._names_waiting(instance.key)
        self._become(instance, InstanceState.LOADING, "a request needs it")
        self._do(actions.Start(instance.key, instance.generation))

    def _stop(self, instance: Instance, reason: str, *, kind: EventKind = "status") -> None:
        self._become(instance, InstanceState.STOPPING, reason, kind=kind)
        self._do(actions.Stop(instance.key, instance.generation))

    def _reject(self, waiter: Waiter, error: LLMRouterError) -> None:
        self._leave_queue(waiter.id)
        self._do(actions.Reject(waiter.id, error.to_failure()))

    def _leave_queue(self, request: int) -> None:
        waiter = self._queue.pop(request, None)
        if waiter is None:
            return
        self._spare_drained_for(request)
        for key in waiter.instances:
            instance = self._instances[key]
            if instance.state is InstanceState.LOADING and not self.waiting(key):
                self._stop(instance, "nobody waits for it any more")

    def _spare_drained_for(self, request: int) -> int:
        """Let go on what drained for *request*, which needs no more room; return how many."""
        drained = [i for i in self._instances.values() if i.drain_for == request]
        for instance in drained:
            instance.drain_for = None
            if instance.state is InstanceState.DRAINING:
                self._become(instance, InstanceState.LOADED, "its room is no longer needed")
        return len(drained)

    def _new_lease(self, instance: Instance, now: float) -> int:
        lease = Lease(self._next_lease, instance.key, now + self._max_lease_seconds)
        self._next_lease += 1
        self._leases[lease.id] = lease
        instance.leases.add(lease.id)
        instance.last_used_seconds = now
        instance.uses += 1
        return lease.id

    def _end_lease(self, lease_id: int, now: float) -> None:
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return
        instance = self._instances[lease.instance]
        instance.leases.discard(lease_id)
        instance.last_used_seconds = now
        if instance.state is InstanceState.DRAINING and not instance.leases:
            self._stop(instance, "its last request has finished")

    def _revoke(self, lease_id: int, error: LLMRouterError, now: float) -> None:
        self._do(actions.Revoke(lease_id, error.to_failure()))
        self._end_lease(lease_id, now)

    def _revoke_all(self, instance: Instance, error: LLMRouterError, now: float) -> None:
        for lease_id in list(instance.leases):
            self._revoke(lease_id, error, now)
