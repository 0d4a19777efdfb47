"""A router without models: it answers from a script and remembers what was asked of it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Unpack

import anyio
import anyio.lowlevel

from llm_router_mw.errors import LeaseExpiredError, LLMRouterError, ModelNotFoundError
from llm_router_mw.protocols import OnQueued
from llm_router_mw.types import (
    AS_USUAL,
    ContentDelta,
    Delta,
    EmbeddingReply,
    FinishDelta,
    Model,
    ModelInfo,
    ModelView,
    Purged,
    QueuePlace,
    RouterEvent,
    RouterView,
    SleepLevel,
    StoredSnapshot,
    Task,
    TextReply,
    Timings,
    Usage,
    Wish,
    WishOptions,
)

ScriptItem = Delta | Exception | Callable[[], Awaitable[None]]
"""A delta is yielded, an error raised, and a callable awaited on the way."""

INFO = ModelInfo(
    n_ctx=512,
    n_ctx_train=1024,
    n_vocab=256,
    n_embd=2,
    n_params=1000,
    size_bytes=4000,
    n_parallel=4,
    load_seconds=0.1,
)
FINISH = FinishDelta(
    reason="stop",
    usage=Usage(prompt_tokens=5, completion_tokens=2, cached_tokens=1),
    timings=Timings(prompt_seconds=0.5, predicted_seconds=0.25),
)
HELLO: tuple[ScriptItem, ...] = (ContentDelta("Hel"), ContentDelta("lo"), FINISH)


def for_ever() -> Callable[[], Awaitable[None]]:
    """Return a script item at which the answer stands still until it is cancelled."""
    return anyio.sleep_forever


def view(name: str, **fields: Any) -> ModelView:
    """Return a view of the model *name*."""
    return ModelView(model=Model(id=name, path=f"/models/{name}.gguf", source="fake"), **fields)


class FakeStream:
    """Plays one script."""

    def __init__(self, task: Task, script: Sequence[ScriptItem], release: bool) -> None:
        self.task = task
        self.release_asked = release
        self.cancelled = threading.Event()
        self._script = iter(script)
        self.usage = Usage()

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> Delta:
        await anyio.lowlevel.checkpoint()
        for item in self._script:
            if isinstance(item, Exception):
                raise item
            if callable(item):
                await item()
            else:
                return item
        raise StopAsyncIteration

    def cancel(self, error: LLMRouterError | None = None) -> None:
        self.cancelled.set()


@dataclass
class FakeLease:
    """Hands out streams that play the model's script."""

    model: str
    script: Sequence[ScriptItem]
    info: ModelInfo = INFO
    streams: list[FakeStream] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def stream(self, task: Task, *, release: bool = False) -> FakeStream:
        if self.released.is_set():
            raise LeaseExpiredError("the lease has been released")
        self.streams.append(FakeStream(task, self.script, release))
        return self.streams[-1]

    async def chat(self, messages: Sequence[dict[str, Any]], **parameters: Any) -> TextReply:
        return self._reply()

    async def complete(self, prompt: str | Sequence[int], **parameters: Any) -> TextReply:
        return self._reply()

    async def embed(self, inputs: str | Sequence[str]) -> EmbeddingReply:
        return EmbeddingReply(vectors=((0.0, 1.0),), usage=Usage())

    def release(self) -> None:
        self.released.set()

    def _reply(self) -> TextReply:
        text = "".join(item.text for item in self.script if isinstance(item, ContentDelta))
        return TextReply(text=text, finish_reason="stop", usage=FINISH.usage)


class FakeRouter:
    """Implements ``StartableRouter``.

    Args:
        scripts: model name → what its answers consist of.
        refusals: model name → what ``lease`` raises.
        waits: model name → what ``lease`` awaits first.
        places: model name → where a request for it stands in the queue, when it begins to wait.
        start_error, stop_error: raised on entering and on leaving.
    """

    def __init__(
        self,
        scripts: dict[str, Sequence[ScriptItem]] | None = None,
        *,
        refusals: dict[str, Exception] | None = None,
        waits: dict[str, Callable[[], Awaitable[None]]] | None = None,
        places: dict[str, QueuePlace] | None = None,
        start_error: Exception | None = None,
        stop_error: Exception | None = None,
    ) -> None:
        self.scripts: dict[str, Sequence[ScriptItem]] = scripts or {"tiny": HELLO}
        self.refusals = refusals or {}
        self.waits = waits or {}
        self.places = places or {}
        self.start_error = start_error
        self.stop_error = stop_error
        self.views: tuple[ModelView, ...] = tuple(view(name) for name in self.scripts)
        self.script_of_events: Sequence[RouterEvent | Callable[[], Awaitable[None]]] = ()
        self.drains = False
        """Whether unloading, or falling asleep, takes longer than the call."""
        self.running_tasks: tuple[Task, ...] = ()
        self.plugin_failures: dict[str, int] = {}
        self.saved: tuple[StoredSnapshot, ...] = ()
        self.running = False
        self.starts = 0
        self.stops = 0
        self.leases: list[FakeLease] = []
        self.demands: list[tuple[str, Wish]] = []
        """The model of each lease that was asked for, and with which wish."""
        self.on_queued: OnQueued | None = None
        """Of the last lease."""
        self.lease_cancelled = threading.Event()
        self.calls: list[tuple[Any, ...]] = []
        self.subscribers = 0

    @property
    def autoloads(self) -> list[bool | None]:
        """``autoload`` of each lease that was asked for."""
        return [wish.autoload for _, wish in self.demands]

    async def __aenter__(self) -> FakeRouter:
        await anyio.lowlevel.checkpoint()
        if self.start_error is not None:
            raise self.start_error
        self.running = True
        self.starts += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.running = False
        self.stops += 1
        if self.stop_error is not None:
            raise self.stop_error

    @asynccontextmanager
    async def acquire(self, *models: str, **options: Unpack[WishOptions]) -> AsyncIterator[Any]:
        leases = tuple([await self.lease(model, Wish(**options)) for model in models])
        try:
            yield leases if len(leases) > 1 else leases[0]
        finally:
            for lease in leases:
                lease.release()

    async def lease(
        self,
        model: str,
        wish: Wish = AS_USUAL,
        *,
        on_queued: OnQueued | None = None,
    ) -> FakeLease:
        self.demands.append((model, wish))
        self.on_queued = on_queued
        if on_queued is not None and model in self.places:
            on_queued(self.places[model])
        if model in self.waits:
            try:
                await self.waits[model]()
            except anyio.get_cancelled_exc_class():
                self.lease_cancelled.set()
                raise
        if model in self.refusals:
            raise self.refusals[model]
        self._check(model)
        self.leases.append(FakeLease(model, self.scripts[model]))
        return self.leases[-1]

    def models(self) -> tuple[ModelView, ...]:
        return self.views

    def overview(self) -> RouterView:
        return RouterView(models_max=4, models_autoload=True, plugin_failures=self.plugin_failures)

    async def tasks(self, model: str) -> tuple[Task, ...]:
        self._check(model)
        return self.running_tasks

    async def load(self, model: str, *, wait: bool = True) -> None:
        self._check(model)
        self.calls.append(("load", model, wait))

    async def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        self._check(model)
        self.calls.append(("unload", model, force, wait))
        return not self.drains

    async def sleep(self, model: str, *, level: SleepLevel = "full", wait: bool = True) -> bool:
        self._check(model)
        self.calls.append(("sleep", model, level, wait))
        return not self.drains

    async def wake(self, model: str, *, wait: bool = True) -> None:
        self._check(model)
        self.calls.append(("wake", model, wait))

    async def cached(self) -> tuple[StoredSnapshot, ...]:
        return self.saved

    async def purge_cache(self, model: str | None = None) -> Purged:
        self._check(model or "tiny")
        self.calls.append(("purge_cache", model))
        return Purged(snapshots=2, size_bytes=3000)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RouterEvent]]:
        self.subscribers += 1
        try:
            yield self._events()
        finally:
            self.subscribers -= 1

    async def _events(self) -> AsyncIterator[RouterEvent]:
        yield RouterEvent(kind="snapshot", model="*", at_seconds=0.0, models=self.views)
        for item in self.script_of_events:
            if isinstance(item, RouterEvent):
                yield item
            else:
                await item()

    def _check(self, model: str) -> None:
        if model not in self.scripts:
            raise ModelNotFoundError(f"no model is called {model!r}", param="model")
