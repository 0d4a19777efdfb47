"""An engine without processes: loads when it is told to, echoes what it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import LLMRouterError, WorkerDiedError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import EngineFactory, ExitReport, ModelSource
from llm_router_mw.types import (
    ChatTask,
    ContentDelta,
    Delta,
    EmbeddingDelta,
    EmbedTask,
    FinishDelta,
    LoadOptions,
    Model,
    ModelInfo,
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
        self._over = False
        self._on_finished = on_finished

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

    def cancel(self) -> None:
        if not self._over:
            self.cancelled = True
            self.deltas = [FinishDelta("cancelled", Usage())]
            self.open.set()
            self._finish()

    def give(self) -> None:
        """Let the reader have everything."""
        self.open.set()

    def fail(self, error: LLMRouterError) -> None:
        self.error = error
        self.open.set()
        self._finish()

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            self._on_finished()


class FakeInstance:
    """One pretended worker; the test decides when its load ends and how."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.pid = None
        self.path = ""
        self.order: Load | None = None
        self.failure: LLMRouterError | None = None
        self.ready = anyio.Event()
        self.gone = anyio.Event()
        self.killed = False
        self.streams: list[FakeStream] = []
        self.exit_code = 0

    async def load(self, order: Load, progress: Callable[[float], None]) -> ModelInfo:
        self.order = order
        self.path = order.path
        self.engine.loads.append(order.path)
        progress(0.5)
        if order.path in self.engine.slow:
            await self.ready.wait()
        if self.failure is not None:
            raise self.failure
        if order.path in self.engine.broken:
            raise self.engine.broken[order.path]
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
        if not self.engine.hold:
            stream.give()
        self.streams.append(stream)
        return stream

    async def stop(self, timeout_seconds: float) -> None:
        if self.path in self.engine.stubborn:
            await self.engine.stubborn[self.path].wait()
        self._exit(WorkerDiedError("stopped"))

    def kill(self) -> None:
        self.killed = True
        self._exit(WorkerDiedError("killed"))

    def die(self) -> None:
        """End as a crash would."""
        self.exit_code = -11
        self._exit(WorkerDiedError("crashed"))

    async def wait(self) -> ExitReport:
        await self.gone.wait()
        return ExitReport(exit_code=self.exit_code)

    def _exit(self, error: LLMRouterError) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self.failure = error
            self.ready.set()
            for stream in self.streams:
                stream.fail(error)


class FakeEngine:
    """Counts loads; names paths that load slowly, fail, or are slow to stop."""

    name = "fake"

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.instances: list[FakeInstance] = []
        self.slow: set[str] = set()
        self.broken: dict[str, LLMRouterError] = {}
        self.stubborn: dict[str, anyio.Event] = {}
        self.hold = False
        self.broken_create: Exception | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def create(self) -> FakeInstance:
        if self.broken_create is not None:
            raise self.broken_create
        instance = FakeInstance(self)
        self.instances.append(instance)
        return instance

    def latest(self, path: str) -> FakeInstance:
        """Return the newest worker of *path*."""
        return next(i for i in reversed(self.instances) if i.path == path)


class FakeSource:
    """Models that have no files."""

    name = "fake"

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def models(self) -> list[Model]:
        return [
            Model(id=name, path=name, source="fake", options=LoadOptions()) for name in self._names
        ]


class FakePlugin:
    """Brings a fake engine and models named by letters."""

    __name__ = "fake"

    def __init__(self, names: Sequence[str] = ("a", "b", "c")) -> None:
        self.engine = FakeEngine()
        self._source = FakeSource(names)

    @hookimpl
    def llm_router_register_engines(self, config: RouterConfig) -> list[EngineFactory]:
        return [self.engine]

    @hookimpl
    def llm_router_register_model_sources(self, config: RouterConfig) -> list[ModelSource]:
        return [self._source]


def _answer(task: Task) -> list[Delta]:
    usage = Usage(prompt_tokens=1, completion_tokens=2)
    finish = FinishDelta("stop", usage)
    if isinstance(task, EmbedTask):
        vector = b"\x00\x00\x80\x3f\x00\x00\x00\x00"  # 1.0, 0.0
        # Out of order on purpose: the index counts.
        return [*(EmbeddingDelta(i, vector) for i in reversed(range(len(task.inputs)))), finish]
    text = task.messages[-1]["content"] if isinstance(task, ChatTask) else str(task.prompt)
    return [ContentDelta("echo: "), ContentDelta(text), finish]
