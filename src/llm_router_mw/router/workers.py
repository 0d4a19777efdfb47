"""The workers of all instances: does to them what was decided, and tells what came of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import anyio.abc

from llm_router_mw.errors import LLMRouterError, ModelLoadError
from llm_router_mw.faults import Faults
from llm_router_mw.memory.machine_lock import Hold
from llm_router_mw.protocols import Clock, EngineFactory, EngineInstance
from llm_router_mw.router.appraiser import mapped_bytes, measured_by_pool
from llm_router_mw.router.gate import Gate
from llm_router_mw.router.handle import Handle
from llm_router_mw.router.process import describe_exit
from llm_router_mw.router.sleep_handlers import SleepHandlers
from llm_router_mw.scheduler import events
from llm_router_mw.scheduler.demand import residue
from llm_router_mw.types import HOST, Device, InstanceKey, ModelInfo, Price, SleepLevel, Step
from llm_router_mw.wire import Load

logger = logging.getLogger("llm_router_mw.router")


class Worker:
    """One generation of an instance: from the start action to the exit of its process."""

    def __init__(self, generation: int, price: Price | None) -> None:
        self.generation = generation
        self.price = price
        self.engine: EngineInstance | None = None
        self.info: ModelInfo | None = None
        self.progress = 0.0
        self.held: Mapping[str, int] | None = None
        """Bytes by pool, by its own account; None while it loads, wakes or falls asleep."""
        self.handle: Handle | None = None
        """What sleep handlers are given of it, once it has an engine."""
        self.has_context = False
        """Whether there is something that they might want to keep."""
        self.saving = anyio.Lock()
        """Held while they keep it."""
        self.stopping = False
        self.at_gate = anyio.CancelScope()
        """Its wait for the right to load: who is not wanted any more need not have it."""
        self.exited = anyio.Event()


Loaded = Callable[[InstanceKey, Worker], Awaitable[None]]
Identify = Callable[[InstanceKey, Price | None], Awaitable[str]]
"""Returns of what its saved states are states; empty if none are to be kept."""


class Workers:
    """Runs workers in a task group of the router; what happens to them goes out as events."""

    def __init__(
        self,
        engine: EngineFactory,
        tasks: anyio.abc.TaskGroup,
        dispatch: Callable[[events.Event], None],
        on_progress: Callable[[InstanceKey, float], None],
        *,
        clock: Clock,
        chat_formats: Mapping[str, str],
        devices: Callable[[], Sequence[Device]],
        gate: Gate | None,
        on_loaded: Loaded,
        handlers: SleepHandlers,
        identify: Identify,
        faults: Faults,
        stop_timeout_seconds: float,
        file_of: Callable[[str], str] = str,
    ) -> None:
        self._engine = engine
        self._tasks = tasks
        self._dispatch = dispatch
        self._on_progress = on_progress
        self._clock = clock
        self._chat_formats = dict(chat_formats)
        self._devices = devices
        """Returns the devices as they were last seen."""
        self._gate = gate
        """Has the last word before a load whose needs are known; None lets all pass."""
        self._on_loaded = on_loaded
        """Learns from a load."""
        self._handlers = handlers
        self._identify = identify
        self._faults = faults
        """Told what the engine does wrong."""
        self._stop_timeout_seconds = stop_timeout_seconds
        self._file_of = file_of
        """Returns the file that a path stands for."""
        self._workers: dict[InstanceKey, Worker] = {}

    # What there is

    def get(self, key: InstanceKey) -> Worker | None:
        """Return the present worker of *key*; only to be read."""
        return self._workers.get(key)

    def processes(self) -> dict[InstanceKey, int]:
        """Return the process of each worker that has one."""
        return {
            key: worker.engine.pid
            for key, worker in self._workers.items()
            if worker.engine is not None and worker.engine.pid is not None
        }

    def told_bytes(self) -> dict[str, int]:
        """Return what all workers hold of each pool but the host's, by their own account."""
        total: Counter[str] = Counter()
        for worker in self._workers.values():
            total.update(worker.held or {})
        total.pop(HOST, None)
        return dict(total)

    def moving(self) -> set[str]:
        """Return the pools but the host's of which workers just take memory, or give it back."""
        moving = [each for each in self._workers.values() if each.engine and each.held is None]
        prices = [worker.price for worker in moving if worker.price is not None]
        return {pool for price in prices for pool in price.bytes_by_pool if pool != HOST}

    async def exited(self, key: InstanceKey) -> None:
        """Return when the present worker of *key* is gone; another one may follow it."""
        worker = self._workers.get(key)
        if worker is not None:
            await worker.exited.wait()

    async def all_exited(self) -> None:
        """Return when all workers are gone."""
        for worker in list(self._workers.values()):
            # One that is still being made ends with the task that makes it.
            if worker.engine is not None:
                await worker.exited.wait()

    # What is to be done

    def start(self, key: InstanceKey, generation: int, price: Price | None) -> None:
        """Make a worker and load *key* in it where *price* says."""
        worker = self._workers[key] = Worker(generation, price)
        self._tasks.start_soon(self._run, key, worker)

    def sleep(self, key: InstanceKey, generation: int, level: SleepLevel) -> None:
        """Put a worker to sleep."""
        worker = self._current(key, generation)
        if worker is not None:
            self._tasks.start_soon(self._sleep, key, worker, level)

    def wake(self, key: InstanceKey, generation: int) -> None:
        """Wake a worker."""
        worker = self._current(key, generation)
        if worker is not None:
            self._tasks.start_soon(self._wake, key, worker)

    def stop(self, key: InstanceKey, generation: int) -> None:
        """End a worker politely."""
        worker = self._current(key, generation)
        if worker is not None:
            worker.stopping = True
            worker.at_gate.cancel()
            if worker.engine is not None:
                self._tasks.start_soon(self._stop, worker, worker.engine)

    def kill(self, key: InstanceKey, generation: int) -> None:
        """End a worker at once."""
        worker = self._current(key, generation)
        if worker is not None:
            worker.stopping = True
            worker.at_gate.cancel()
            if worker.engine is not None:
                try:
                    worker.engine.kill()
                except Exception as error:
                    self._blame(error)

    def _current(self, key: InstanceKey, generation: int) -> Worker | None:
        worker = self._workers.get(key)
        return worker if worker is not None and worker.generation == generation else None

    # A worker's life

    async def _run(self, key: InstanceKey, worker: Worker) -> None:
        hold = None
        if self._gate is not None and worker.price is not None:
            with worker.at_gate:
                hold = await self._gate.admit(worker.price)
            if hold is None and not worker.stopping:
                self._forget(key, worker)
                self._tell_deferred(key, worker)
                return
        try:
            await self._live(key, worker, hold)
        finally:
            if hold is not None:
                hold.release()

    def _tell_deferred(self, key: InstanceKey, worker: Worker) -> None:
        reason = "something else on the machine took its room; it goes on waiting"
        self._dispatch(events.Deferred(instance=key, generation=worker.generation, reason=reason))

    def _forget(self, key: InstanceKey, worker: Worker) -> None:
        if self._workers.get(key) is worker:
            del self._workers[key]
        if worker.handle is not None:
            self._handlers.left(worker.handle)
        worker.exited.set()

    async def _live(self, key: InstanceKey, worker: Worker, hold: Hold | None) -> None:
        reason = "its worker has stopped"
        is_gone = False
        try:
            if worker.stopping:  # before there was anything to stop
                return
            worker.engine = await self._engine.create()
            if not worker.stopping:
                await self._load(key, worker, worker.engine)
                if hold is not None:
                    hold.release()
                # Not awaited: from here on its end must be seen as soon as it comes.
                self._tasks.start_soon(self._learn, key, worker)
            if worker.stopping:
                await self._end(worker.engine)
            report = await worker.engine.wait()
            is_gone = True
            if not worker.stopping:
                reason = describe_exit(report)
        except LLMRouterError as error:
            self._load_failed(key, worker, error)
        except Exception as error:  # an engine plugin's own failure must not end the router
            reason = self._blame(error)
            self._load_failed(key, worker, ModelLoadError(reason))
        finally:
            # Nothing is awaited once it is gone: whoever it fails may ask again at once.
            if worker.engine is not None and not is_gone:
                with anyio.CancelScope(shield=True):  # bounded by the stop timeout
                    await self._end(worker.engine)
            self._forget(key, worker)
            self._dispatch(
                events.WorkerExited(instance=key, generation=worker.generation, reason=reason)
            )

    async def _load(self, key: InstanceKey, worker: Worker, engine: EngineInstance) -> None:
        began = self._clock()
        identity = await self._identify(key, worker.price)
        worker.handle = self._handlers.handle(key, engine, identity, lambda: worker.held or {})
        order = Load(
            path=self._file_of(key.path),
            options=key.options,
            chat_formats=self._chat_formats,
            placement=None if worker.price is None else worker.price.placement,
            identity=worker.handle.identity,
        )
        worker.info = await engine.load(order, self._progress_of(key, worker))
        await self._resume(worker, worker.handle)
        self._dispatch(
            events.Loaded(
                instance=key,
                generation=worker.generation,
                load_seconds=self._clock() - began,
                measured=self._measure(worker),
            )
        )

    async def _learn(self, key: InstanceKey, worker: Worker) -> None:
        try:
            await self._on_loaded(key, worker)
        except Exception:  # what is not learned costs a little accuracy, no load
            logger.exception("%s: nothing was learned of its load", key)

    async def _resume(self, worker: Worker, handle: Handle) -> None:
        worker.has_context = True
        await self._handlers.resume(handle)

    async def _save(self, worker: Worker, level: Step) -> None:
        """Return when sleep handlers have kept what they want, before it is gone."""
        async with worker.saving:
            if worker.handle is not None and worker.has_context:
                worker.has_context = False
                await self._handlers.sleep(worker.handle, level)

    async def _stop(self, worker: Worker, engine: EngineInstance) -> None:
        await self._save(worker, "stop")
        await self._end(engine)

    async def _sleep(self, key: InstanceKey, worker: Worker, level: SleepLevel) -> None:
        assert worker.engine is not None
        await self._save(worker, level)
        if worker.stopping:  # which came meanwhile, and waited for no more than this
            return
        worker.held = None
        try:
            report = await worker.engine.sleep(level)
        except Exception as error:  # a worker that cannot sleep must not keep its memory
            logger.warning("%s could not fall asleep and is ended: %s", key, error)
            await self._end(worker.engine)
            return
        worker.held = residue(worker.price, level)
        left = None
        if report.private_bytes is not None:
            mapped = mapped_bytes(worker.info.memory) if worker.info and level == "context" else 0
            left = {HOST: report.private_bytes + mapped}
        self._dispatch(
            events.Slept(
                instance=key,
                generation=worker.generation,
                sleep_seconds=report.seconds,
                measured=left,
            )
        )

    async def _wake(self, key: InstanceKey, worker: Worker) -> None:
        if self._gate is None or worker.price is None:
            await self._load_again(key, worker)
            return
        hold = await self._gate.admit(worker.price, worker.held or {})
        if hold is not None:
            with hold:
                if not worker.stopping:
                    await self._load_again(key, worker)
        elif not worker.stopping:
            self._tell_deferred(key, worker)

    async def _load_again(self, key: InstanceKey, worker: Worker) -> None:
        assert worker.engine is not None
        began = self._clock()
        worker.held = None
        try:
            if worker.handle is not None and worker.handle.identity:
                worker.handle.verify(await self._identify(key, worker.price))
            worker.info = await worker.engine.wake(self._progress_of(key, worker))
        except Exception as error:
            failed = error if isinstance(error, LLMRouterError) else None
            self._load_failed(key, worker, failed or ModelLoadError(self._blame(error)))
            worker.stopping = True
            await self._end(worker.engine)
            return
        if worker.handle is not None:
            await self._resume(worker, worker.handle)
        self._dispatch(
            events.Woke(
                instance=key,
                generation=worker.generation,
                wake_seconds=self._clock() - began,
                measured=self._measure(worker),
            )
        )

    async def _end(self, engine: EngineInstance) -> None:
        try:
            await engine.stop(self._stop_timeout_seconds)
        except Exception as error:  # an engine plugin's own failure must not end the router
            self._blame(error)

    # What came of it

    def _progress_of(self, key: InstanceKey, worker: Worker) -> Callable[[float], None]:
        worker.progress = 0.0

        def progressed(value: float) -> None:
            worker.progress = value
            self._on_progress(key, value)

        return progressed

    def _measure(self, worker: Worker) -> dict[str, int] | None:
        memory = None if worker.info is None else worker.info.memory
        measured = measured_by_pool(memory, worker.price, self._devices())
        reserved = {} if worker.price is None else worker.price.bytes_by_pool
        worker.held = reserved if measured is None else measured
        return measured

    def _load_failed(self, key: InstanceKey, worker: Worker, error: LLMRouterError) -> None:
        self._dispatch(
            events.LoadFailed(
                instance=key,
                generation=worker.generation,
                failure=error.to_failure(),
                out_of_memory=bool(error.fields.get("out_of_memory")),
            )
        )

    def _blame(self, error: Exception) -> str:
        self._faults.add("engine", self._engine.name, error)
        return f"engine {self._engine.name!r} failed: {error}"
