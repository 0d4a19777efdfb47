"""The router for synchronous code: the same verbs, blocking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Unpack

from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.protocols import DeltaStream, LeaseContract
from llm_router_mw.router.thread import RouterThread
from llm_router_mw.types import (
    Delta,
    EmbeddingReply,
    ModelInfo,
    ModelView,
    Purged,
    SleepLevel,
    Task,
    TextReply,
    Wish,
    WishOptions,
)


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

    @contextmanager
    def acquire(
        self,
        model: str,
        **options: Unpack[WishOptions],
    ) -> Iterator[SyncLease]:
        """Load or wait for *model* and hold it; options as of ``Router.acquire``."""
        self._thread.start()
        lease = self._thread.call(self._thread.router.lease, model, Wish(**options))
        try:
            yield SyncLease(self._thread, lease)
        finally:
            with suppress(RouterNotRunningError):
                self._thread.call(_release, lease)

    def models(self) -> tuple[ModelView, ...]:
        """All models and their states."""
        self._thread.start()
        return self._thread.router.models()

    def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""
        self._thread.start()
        self._thread.call(partial(self._thread.router.load, model, wait=wait))

    def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        """Unload *model*; returns False if it is still draining."""
        self._thread.start()
        return self._thread.call(partial(self._thread.router.unload, model, force=force, wait=wait))

    def sleep(self, model: str, *, level: SleepLevel = "full", wait: bool = True) -> bool:
        """Put *model* to sleep; returns False if it is still draining."""
        self._thread.start()
        return self._thread.call(partial(self._thread.router.sleep, model, level=level, wait=wait))

    def wake(self, model: str, *, wait: bool = True) -> None:
        """Have *model* ready, from sleep or from nothing."""
        self._thread.start()
        self._thread.call(partial(self._thread.router.wake, model, wait=wait))

    def purge_cache(self, model: str | None = None) -> Purged:
        """Remove all saved conversations, or those of *model*'s file."""
        self._thread.start()
        return self._thread.call(partial(self._thread.router.purge_cache, model))


# On the router's loop, whatever they do: its state belongs to it.


async def _start(lease: LeaseContract, task: Task) -> DeltaStream:
    return lease.stream(task)


async def _next_or_none(stream: DeltaStream) -> Delta | None:
    # StopAsyncIteration can't cross threads in a future.
    return await anext(stream, None)


async def _cancel(stream: DeltaStream) -> None:
    stream.cancel()


async def _release(lease: LeaseContract) -> None:
    lease.release()
