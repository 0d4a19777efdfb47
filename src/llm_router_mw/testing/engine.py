"""An engine without processes: it loads when it is told to, and echoes what it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from llm_router_mw.errors import LLMRouterError, ModelUnloadedError, WireError, WorkerDiedError
from llm_router_mw.protocols import ExitReport, SleepReport
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    Delta,
    EmbeddingDelta,
    EmbedTask,
    FinishDelta,
    ModelInfo,
    SleepLevel,
    Task,
    Usage,
)
from llm_router_mw.wire import Load


class FakeStream:
    """Holds its deltas back until ``give`` is called, unless it was made open."""

    def __init__(self, deltas: Sequence[Delta], on_finished: Callable[[], None]) -> None:
        self.deltas = list(deltas)
        self.cancelled = False
        self.error: LLMRouterError | None = None
        self.open = anyio.Event()
        self.over = False
        self._on_finished = on_finished
        self._usage = next((d.usage for d in deltas if isinstance(d, FinishDelta)), Usage())

    @property
    def usage(self) -> Usage:
        """What the answer was said to use, once it is over."""
        return self._usage if self.over else Usage()

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> Delta:
        await self.open.wait()
        if self.error is not None:
            raise self.error
        if not self.deltas:
            raise StopAsyncIteration
        delta = self.deltas.pop(0)
        if isinstance(delta, FinishDelta):
            self._finish()
        return delta

    def cancel(self, error: LLMRouterError | None = None) -> None:
        if not self.over:
            self.cancelled = True
            self.error = error
            self.deltas = [FinishDelta("cancelled", Usage())]
            self.open.set()
            self._finish()

    def give(self) -> None:
        """Let the reader have everything."""
        self.open.set()

    def fail(self, error: LLMRouterError) -> None:
        if not self.over:
            self.error = error
            self.open.set()
            self._finish()

    def _finish(self) -> None:
        if not self.over:
            self.over = True
            self._on_finished()


class FakeInstance:
    """One pretended worker; the test decides when its load ends and how (an ``EngineInstance``)."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.pid = None
        self.name = ""
        self.order: Load | None = None
        self.failure: LLMRouterError | None = None
        self.ready = anyio.Event()
        self.gone = anyio.Event()
        self.killed = False
        self.stops = 0
        self.streams: list[FakeStream] = []
        self.exit_code = 0
        self.asleep: SleepLevel | None = None
        self.told: list[str] = []
        """Levels of sleep, and ``wake``, in the order in which they were asked for."""

    async def load(self, order: Load, progress: Callable[[float], None]) -> ModelInfo:
        self.order = order
        self.name = Path(order.path).stem
        self.engine.loads.append(self.name)
        return await self._come_up(progress)

    async def sleep(self, level: SleepLevel) -> SleepReport:
        """Fall asleep; slowly, as ``slow_sleep`` says."""
        self.told.append(level)
        if any(not stream.over for stream in self.streams):
            raise WireError("the model cannot sleep while requests are under way")
        if self.engine.slow_sleep is not None:
            await self.engine.slow_sleep.wait()
        if self.failure is not None:
            raise self.failure
        self.asleep = level
        held = self.engine.asleep_bytes[level]
        return SleepReport(seconds=0.1, private_bytes=held, freed_bytes=1000 - held)

    async def wake(self, progress: Callable[[float], None]) -> ModelInfo:
        """Load again; slowly, or with a failure, as a load would."""
        self.told.append("wake")
        if not self.gone.is_set():
            self.ready = anyio.Event()
        info = await self._come_up(progress)
        self.asleep = None
        return info

    async def _come_up(self, progress: Callable[[float], None]) -> ModelInfo:
        progress(0.5)
        if self.name in self.engine.slow:
            await self.ready.wait()
        if self.failure is not None:
            raise self.failure
        if self.name in self.engine.broken:
            raise self.engine.broken[self.name]
        return ModelInfo(
            n_ctx=128,
            n_ctx_train=128,
            n_vocab=10,
            n_embd=2,
            n_params=100,
            size_bytes=400,
            n_parallel=4,
            load_seconds=0.1,
        )

    def submit(self, task: Task, on_finished: Callable[[], None]) -> FakeStream:
        stream = FakeStream(_answer(task), on_finished)
        if self.asleep is not None:
            stream.fail(ModelUnloadedError("the model has fallen asleep"))
        if not self.engine.hold:
            stream.give()
        self.streams.append(stream)
        return stream

    async def stop(self, timeout_seconds: float) -> None:
        self.stops += 1
        if self.name in self.engine.stubborn:
            await self.engine.stubborn[self.name].wait()
        self._exit(WorkerDiedError("stopped"))
        if self.engine.broken_end is not None:
            raise self.engine.broken_end

    def kill(self) -> None:
        self.killed = True
        self._exit(WorkerDiedError("killed"))
        if self.engine.broken_end is not None:
            raise self.engine.broken_end

    def die(self) -> None:
        """End as a crash would."""
        self.exit_code = -11
        self._exit(WorkerDiedError("crashed"))

    async def wait(self) -> ExitReport:
        await self.gone.wait()
        if self.engine.broken_wait is not None:
            raise self.engine.broken_wait
        return ExitReport(exit_code=self.exit_code)

    def _exit(self, error: LLMRouterError) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self.failure = error
            self.ready.set()
            for stream in self.streams:
                stream.fail(error)


class FakeEngine:
    """Counts loads; its sets and dicts say which models load slowly, fail, or are slow to stop."""

    name = "fake"

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.instances: list[FakeInstance] = []
        self.slow: set[str] = set()
        self.broken: dict[str, LLMRouterError] = {}
        self.stubborn: dict[str, anyio.Event] = {}
        self.hold = False
        """Streams give nothing until they are told to."""
        self.slow_create: anyio.Event | None = None
        self.slow_sleep: anyio.Event | None = None
        """Falling asleep waits for it."""
        self.asleep_bytes: dict[SleepLevel, int] = {"context": 400, "full": 50}
        self.broken_running: Exception | None = None
        self.broken_create: Exception | None = None
        self.broken_wait: Exception | None = None
        self.broken_end: Exception | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if self.broken_running is not None:
            raise self.broken_running
        yield

    async def create(self) -> FakeInstance:
        if self.slow_create is not None:
            await self.slow_create.wait()
        if self.broken_create is not None:
            raise self.broken_create
        instance = FakeInstance(self)
        self.instances.append(instance)
        return instance

    def latest(self, name: str) -> FakeInstance:
        """Return the newest worker of the model *name*."""
        return next(each for each in reversed(self.instances) if each.name == name)


def _answer(task: Task) -> list[Delta]:
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    finish = FinishDelta("stop", usage)
    if isinstance(task, EmbedTask):
        vector = b"\x00\x00\x80\x3f\x00\x00\x00\x00"  # 1.0, 0.0
        # Out of order on purpose: the index counts.
        return [*(EmbeddingDelta(i, vector) for i in reversed(range(len(task.inputs)))), finish]
    if isinstance(task, ChatTask):
        text = task.messages[-1]["content"]
    else:
        assert isinstance(task, CompletionTask)
        text = str(task.prompt)
    return [ContentDelta("echo: "), ContentDelta(text), finish]
