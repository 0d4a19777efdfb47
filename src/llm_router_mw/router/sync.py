"""The router for synchronous code: the same verbs, blocking."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    contextmanager,
    suppress,
)
from functools import partial
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.protocols import DeltaStream, LeaseContract
from llm_router_mw.router.thread import RouterThread
from llm_router_mw.types import (
    Delta,
    EmbeddingReply,
    ModelInfo,
    ModelView,
    Purged,
    RouterEvent,
    RouterView,
    SleepLevel,
    StoredSnapshot,
    Task,
    TextReply,
    WishOptions,
)

P = ParamSpec("P")
T = TypeVar("T")


class SyncLease:
    """A lease in blocking verbs."""

    def __init__(self, thread: RouterThread, lease: LeaseContract) -> None:
        self._thread = thread
        self._lease = lease

    @property
    def model(self) -> str:
        """Id of the leased model."""
        return self._lease.model

    @property
    def info(self) -> ModelInfo:
        """Facts about the loaded instance."""
        return self._lease.info

    def chat(self, messages: Sequence[dict[str, Any]], **parameters: Any) -> TextReply:
        """Answer a conversation. *parameters* are fields of ``ChatTask`` and ``Sampling``."""
        return self._thread.call(partial(self._lease.chat, messages, **parameters))

    def complete(self, prompt: str | Sequence[int], **parameters: Any) -> TextReply:
        """Continue *prompt*. *parameters* are fields of ``CompletionTask`` and ``Sampling``."""
        return self._thread.call(partial(self._lease.complete, prompt, **parameters))

    def embed(self, inputs: str | Sequence[str]) -> EmbeddingReply:
        """Embed one text or several."""
        return self._thread.call(self._lease.embed, inputs)

    def stream(self, task: Task) -> Iterator[Delta]:
        """Yield the deltas of *task* as they come; closing the iterator cancels it."""
        stream = self._thread.call(_start, self._lease, task)
        try:
            while (delta := self._thread.call(_next_or_none, stream)) is not None:
                yield delta
        finally:
            with suppress(RouterNotRunningError):
                self._thread.call(_cancel, stream)


class SyncRouter:
    """A router in blocking verbs, on a thread of its own that starts on first use."""

    def __init__(self, thread: RouterThread) -> None:
        self._thread = thread

    @overload
    def acquire(
        self, model: str, /, **options: Unpack[WishOptions]
    ) -> AbstractContextManager[SyncLease]: ...
    @overload
    def acquire(
        self, model: str, second: str, /, *models: str, **options: Unpack[WishOptions]
    ) -> AbstractContextManager[tuple[SyncLease, ...]]: ...
    @contextmanager
    def acquire(self, *models: str, **options: Unpack[WishOptions]) -> Iterator[Any]:
        """Load or wait for the models and hold them; several names are taken all at once.

        Options as of ``Router.acquire``.
        """
        with self._entered(self._thread.router.acquire(*models, **options)) as held:
            if isinstance(held, tuple):
                yield tuple(SyncLease(self._thread, lease) for lease in held)
            else:
                yield SyncLease(self._thread, held)

    def models(self) -> tuple[ModelView, ...]:
        """All models and their states."""
        self._thread.start()
        return self._thread.router.models()

    def overview(self) -> RouterView:
        """The router as a whole."""
        self._thread.start()
        return self._thread.router.overview()

    def tasks(self, model: str) -> tuple[Task, ...]:
        """What *model*'s instance works on; wakes nothing."""
        return self._call(self._thread.router.tasks, model)

    def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""
        self._call(self._thread.router.load, model, wait=wait)

    def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        """Unload *model*; returns False if it is still draining."""
        return self._call(self._thread.router.unload, model, force=force, wait=wait)

    def sleep(self, model: str, *, level: SleepLevel = "full", wait: bool = True) -> bool:
        """Put *model* to sleep; returns False if it is still draining."""
        return self._call(self._thread.router.sleep, model, level=level, wait=wait)

    def wake(self, model: str, *, wait: bool = True) -> None:
        """Have *model* ready, from sleep or from nothing."""
        self._call(self._thread.router.wake, model, wait=wait)

    def cached(self) -> tuple[StoredSnapshot, ...]:
        """Saved conversations, the latest used first."""
        return self._call(self._thread.router.cached)

    def purge_cache(self, model: str | None = None) -> Purged:
        """Remove all saved conversations, or those of *model*'s file."""
        return self._call(self._thread.router.purge_cache, model)

    @contextmanager
    def events(self) -> Iterator[Iterator[RouterEvent]]:
        """Subscribe to events; the first one is a snapshot of all models.

        The iterator waits for the next event; it ends when the router does.
        """
        with self._entered(self._thread.router.events()) as events:
            yield self._each(events)

    def _each(self, events: AsyncIterator[T]) -> Iterator[T]:
        with suppress(RouterNotRunningError):
            while (event := self._thread.call(_next_or_none, events)) is not None:
                yield event

    def _call(self, verb: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
        self._thread.start()
        return self._thread.call(partial(verb, *args, **options))

    @contextmanager
    def _entered(self, manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Hold *manager* on the router's loop meanwhile."""
        self._thread.start()
        stack = AsyncExitStack()
        held = self._thread.call(stack.enter_async_context, manager)
        try:
            yield held
        finally:
            with suppress(RouterNotRunningError):
                self._thread.call(stack.aclose)


# On the router's loop, whatever they do: its state belongs to it.


async def _start(lease: LeaseContract, task: Task) -> DeltaStream:
    return lease.stream(task)


async def _next_or_none(iterator: AsyncIterator[T]) -> T | None:
    # StopAsyncIteration can't cross threads in a future.
    return await anext(iterator, None)


async def _cancel(stream: DeltaStream) -> None:
    stream.cancel()
