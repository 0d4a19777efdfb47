"""Feeds the scheduler with events and carries out what it decides. All I/O of the router is here.

Everything runs on one event loop, so the state needs no locks: an event is taken in, and all its
actions are carried out, before the loop does anything else.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import anyio
import anyio.abc

from llm_router_mw.errors import (
    LLMRouterError,
    ModelLoadError,
    error_from,
)
from llm_router_mw.protocols import Clock, EngineFactory, EngineInstance
from llm_router_mw.router.hub import EventHub
from llm_router_mw.router.lease import Lease
from llm_router_mw.router.process import describe_exit
from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.types import Failure, InstanceKey, Model, ModelInfo, RouterEvent
from llm_router_mw.wire import Load

logger = logging.getLogger("llm_router_mw.router")


class Pending:
    """A request that waits for its grant."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = models
        self.leases: tuple[Lease, ...] | None = None
        self.failure: Failure | None = None
        self.done = anyio.Event()


class Worker:
    """One generation of an instance: from the start action to the exit of its process."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.engine: EngineInstance | None = None
        self.info: ModelInfo | None = None
        self.progress = 0.0
        self.stopping = False
        self.exited = anyio.Event()


class Conductor:
    """The I/O shell around a scheduler."""

    def __init__(
        self,
        scheduler: Scheduler,
        engine: EngineFactory,
        hub: EventHub,
        tasks: anyio.abc.TaskGroup,
        *,
        clock: Clock,
        names: Mapping[InstanceKey, Sequence[str]],
        chat_formats: dict[str, str],
        stop_timeout_seconds: float,
    ) -> None:
        self._scheduler = scheduler
        self._engine = engine
        self._hub = hub
        self._tasks = tasks
        self._clock = clock
        self._names = names
        """The models of each instance: they all show its state."""
        self._chat_formats = chat_formats
        self._stop_timeout_seconds = stop_timeout_seconds
        self._inbox: deque[events.Event] = deque()
        self._deciding = False
        self._next_request = 0
        self._pending: dict[int, Pending] = {}
        self._leases: dict[int, Lease] = {}
        self._workers: dict[InstanceKey, Worker] = {}
        self._timer_at: float | None = None
        self._timer_moved = anyio.Event()

    # Verbs

    async def request(
        self, models: Sequence[Model], *, autoload: bool, hold: bool
    ) -> tuple[Lease, ...]:
        """Return one lease per model once all of them are ready (none without *hold*).

        Raises:
            LLMRouterError: the scheduler refused, or a load failed.
        """
        event = self._request_event(models, autoload=autoload, hold=hold)
        request_id = event.id
        pending = self._pending[request_id] = Pending(models)
        try:
            self.dispatch(event)
            await pending.done.wait()
        except BaseException:  # cancelled, perhaps in the moment of the grant
            if not pending.done.is_set():
                self.dispatch(events.Cancelled(request_id))
            for lease in pending.leases or ():
                lease.release()
            raise
        finally:
            del self._pending[request_id]
        if pending.failure is not None:
            raise error_from(pending.failure)
        assert pending.leases is not None
        return pending.leases

    def request_later(self, models: Sequence[Model]) -> None:
        """Ask for *models* to be loaded; how it went is seen in the events."""
        self.dispatch(self._request_event(models, autoload=True, hold=False))

    def _request_event(
        self, models: Sequence[Model], *, autoload: bool, hold: bool
    ) -> events.Request:
        self._next_request += 1
        return events.Request(
            id=self._next_request,
            instances=tuple(model.instance_key for model in models),
            models=tuple(model.id for model in models),
            autoload=autoload,
            hold=hold,
        )

    def dispatch(self, event: events.Event) -> None:
        """Take *event* in. An action may cause events of its own: they wait for their turn."""
        self._inbox.append(event)
        if self._deciding:
            return
        self._deciding = True
        try:
            while self._inbox:
                for action in self._scheduler.decide(self._inbox.popleft(), self._clock()):
                    self._carry_out(action)
        finally:
            self._deciding = False

    def worker(self, key: InstanceKey) -> Worker | None:
        """Return the present worker of *key*; only to be read."""
        return self._workers.get(key)

    async def exited(self, key: InstanceKey) -> None:
        """Return when the present worker of *key* is gone; another one may follow it."""
        worker = self._workers.get(key)
        if worker is not None:
            await worker.exited.wait()

    async def close(self) -> None:
        """Refuse what waits, end all leases, stop all workers; return when they are gone."""
        self.dispatch(events.Shutdown())
        for worker in list(self._workers.values()):
            # One that is still being made ends with the task that makes it.
            if worker.engine is not None:
                await worker.exited.wait()

    # Actions

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.Start(instance, generation):
                worker = self._workers[instance] = Worker(generation)
                self._tasks.start_soon(self._run_worker, instance, worker)
            case actions.Stop(instance, generation):
                self._with_worker(instance, generation, self._stop_worker)
            case actions.Kill(instance, generation):
                self._with_worker(instance, generation, self._kill_worker)
            case actions.Grant(request, leases):
                self._grant(request, leases)
            case actions.Reject(request, failure):
                if (pending := self._pending.get(request)) is not None:
                    pending.failure = failure
                    pending.done.set()
            case actions.Revoke(lease, failure):
                if (held := self._leases.get(lease)) is not None:
                    held.revoke(error_from(failure))
            case actions.SetTimer(at_seconds):
                self._set_timer(at_seconds)
            case actions.Announce():
                self._announce(action)

    def _grant(self, request_id: int, lease_ids: tuple[int, ...]) -> None:
        pending = self._pending.get(request_id)
        if pending is None or pending.done.is_set():
            # Nobody is there to hold them: the request has left.
            for lease_id in lease_ids:
                self.dispatch(events.Released(lease_id))
            return
        # Not strict: a request that only asked for loading gets no leases.
        pending.leases = tuple(
            self._make_lease(lease_id, model)
            for lease_id, model in zip(lease_ids, pending.models, strict=False)
        )
        pending.done.set()

    def _make_lease(self, lease_id: int, model: Model) -> Lease:
        worker = self._workers[model.instance_key]
        assert worker.engine is not None
        assert worker.info is not None

        def released() -> None:
            del self._leases[lease_id]
            self.dispatch(events.Released(lease_id))

        lease = self._leases[lease_id] = Lease(model, worker.engine, worker.info, released)
        return lease

    def _with_worker(
        self, key: InstanceKey, generation: int, act: Callable[[Worker], None]
    ) -> None:
        worker = self._workers.get(key)
        if worker is not None and worker.generation == generation:
            act(worker)

    def _stop_worker(self, worker: Worker) -> None:
        worker.stopping = True
        if worker.engine is not None:
            self._tasks.start_soon(self._end_engine, worker.engine)

    def _kill_worker(self, worker: Worker) -> None:
        worker.stopping = True
        if worker.engine is not None:
            try:
                worker.engine.kill()
            except Exception:
                logger.exception("engine %r could not kill a worker", self._engine.name)

    async def _end_engine(self, engine: EngineInstance) -> None:
        try:
            await engine.stop(self._stop_timeout_seconds)
        except Exception:  # an engine plugin's own failure must not end the router
            logger.exception("engine %r could not stop a worker", self._engine.name)

    def _set_timer(self, at_seconds: float | None) -> None:
        wakes = math.inf if self._timer_at is None else self._timer_at
        self._timer_at = at_seconds
        # A timer that is put off may ring early: the scheduler then sets it again.
        if at_seconds is not None and at_seconds < wakes:
            self._timer_moved.set()

    async def run_timer(self) -> None:
        """Send the ticks that the scheduler asks for; runs as long as the router."""
        while True:
            self._timer_moved = anyio.Event()
            delay = math.inf if self._timer_at is None else self._timer_at - self._clock()
            with anyio.move_on_after(max(0.0, delay)) as scope:
                await self._timer_moved.wait()
            if scope.cancelled_caught:
                self._timer_at = None
                self.dispatch(events.Tick())

    def _announce(self, announcement: actions.Announce) -> None:
        key = announcement.instance
        names = self._names[key]
        level = logging.WARNING if announcement.kind in _TROUBLE else logging.INFO
        logger.log(level, "%s: %s: %s", ", ".join(names), announcement.state, announcement.reason)
        for model in names:
            self._hub.publish(
                RouterEvent(
                    kind=announcement.kind,
                    model=model,
                    at_seconds=self._clock(),
                    state=announcement.state,
                    reason=announcement.reason,
                    data=announcement.data,
                )
            )

    # Workers

    async def _run_worker(self, key: InstanceKey, worker: Worker) -> None:
        reason = "its worker has stopped"
        try:
            worker.engine = await self._engine.create()
            if not worker.stopping:
                await self._load(key, worker)
            if worker.stopping:
                await self._end_engine(worker.engine)
            report = await worker.engine.wait()
            if not worker.stopping:
                reason = describe_exit(report)
        except LLMRouterError as error:
            self._load_failed(key, worker, error)
        except Exception as error:  # an engine plugin's own failure must not end the router
            logger.exception("engine %r failed", self._engine.name)
            reason = f"engine {self._engine.name!r} failed: {error}"
            self._load_failed(key, worker, ModelLoadError(reason))
        finally:
            if worker.engine is not None:
                with anyio.CancelScope(shield=True):  # bounded by the stop timeout
                    await self._end_engine(worker.engine)
            del self._workers[key]
            worker.exited.set()
            self.dispatch(
                events.WorkerExited(instance=key, generation=worker.generation, reason=reason)
            )

    async def _load(self, key: InstanceKey, worker: Worker) -> None:
        assert worker.engine is not None
        began = self._clock()

        def progressed(value: float) -> None:
            worker.progress = value
            for model in self._names[key]:
                self._hub.publish(
                    RouterEvent(
                        kind="progress",
                        model=model,
                        at_seconds=self._clock(),
                        data={"value": value},
                    )
                )

        order = Load(path=key.path, options=key.options, chat_formats=self._chat_formats)
        worker.info = await worker.engine.load(order, progressed)
        self.dispatch(
            events.Loaded(
                instance=key,
                generation=worker.generation,
                load_seconds=self._clock() - began,
            )
        )

    def _load_failed(self, key: InstanceKey, worker: Worker, error: LLMRouterError) -> None:
        self.dispatch(
            events.LoadFailed(
                instance=key, generation=worker.generation, failure=error.to_failure()
            )
        )


_TROUBLE = frozenset({"worker_died", "load_failed"})
