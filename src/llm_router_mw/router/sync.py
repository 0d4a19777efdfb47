"""The router for synchronous code: the same verbs, blocking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from llm_router_mw.protocols import DeltaStream, LeaseContract
from llm_router_mw.router.thread import RouterThread
from llm_router_mw.types import Delta, EmbeddingReply, ModelInfo, ModelView, Task, TextReply


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
        return self._thread.portal.call(partial(self._lease.chat, messages, **parameters))

    def complete(self, prompt: str | Sequence[int], **parameters: Any) -> TextReply:
        """Continue *prompt*. *parameters* are fields of ``CompletionTask`` and ``Sampling``."""
        return self._thread.portal.call(partial(self._lease.complete, prompt, **parameters))

    def embed(self, inputs: str | Sequence[str]) -> EmbeddingReply:
        """Embed one text or several."""
        return self._thread.portal.call(self._lease.embed, inputs)

    def stream(self, task: Task) -> Iterator[Delta]:
        """Yield the deltas of *task* as they come; closing the iterator cancels it."""
        portal = self._thread.portal
        stream: DeltaStream = portal.call(self._lease.stream, task)
        try:
            # StopAsyncIteration can't cross threads in a future.
            while (delta := portal.call(_next_or_none, stream)) is not None:
                yield delta
        finally:
            portal.call(stream.cancel)


class SyncRouter:
    """A router in blocking verbs, on a thread of its own that starts on first use."""

    def __init__(self, thread: RouterThread) -> None:
        self._thread = thread

    @contextmanager
    def acquire(self, model: str) -> Iterator[SyncLease]:
        """Load or wait for *model* and hold it."""
        self._thread.start()
        portal = self._thread.portal
        with portal.wrap_async_context_manager(self._thread.router.acquire(model)) as lease:
            yield SyncLease(self._thread, lease)

    def models(self) -> tuple[ModelView, ...]:
        """All models and their states."""
        self._thread.start()
        return self._thread.router.models()

    def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""
        self._thread.start()
        self._thread.portal.call(partial(self._thread.router.load, model, wait=wait))

    def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        """Unload *model*; returns False if it is still draining."""
        self._thread.start()
        unload = partial(self._thread.router.unload, model, force=force, wait=wait)
        return self._thread.portal.call(unload)


async def _next_or_none(stream: DeltaStream) -> Delta | None:
    return await anext(stream, None)
