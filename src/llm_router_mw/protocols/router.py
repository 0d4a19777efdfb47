"""What doors, dialects and app code may ask of a router."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Protocol, Unpack, overload

from llm_router_mw.protocols.stream import DeltaStream
from llm_router_mw.types import (
    AS_USUAL,
    EmbeddingReply,
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
    Wish,
    WishOptions,
)

OnQueued = Callable[[QueuePlace], None]
"""Is told where a waiting request stands."""


class LeaseContract(Protocol):
    """The right to use one instance: while it is held, the instance is not evicted."""

    @property
    def model(self) -> str:
        """Id of the leased model."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Facts about the loaded instance."""
        ...

    def stream(self, task: Task, *, release: bool = False) -> DeltaStream:
        """Start *task*; with *release* the lease ends as soon as the worker is done with it."""
        ...

    async def chat(self, messages: Sequence[dict[str, Any]], **parameters: Any) -> TextReply:
        """Answer a conversation. *parameters* are fields of ``ChatTask`` and ``Sampling``."""
        ...

    async def complete(self, prompt: str | Sequence[int], **parameters: Any) -> TextReply:
        """Continue *prompt*. *parameters* are fields of ``CompletionTask`` and ``Sampling``."""
        ...

    async def embed(self, inputs: str | Sequence[str]) -> EmbeddingReply:
        """Embed one text or several."""
        ...

    def release(self) -> None:
        """Give the instance back; running streams of the lease are cancelled. Idempotent."""
        ...


class RouterContract(Protocol):
    """What doors, dialects and app code may ask of a router."""

    @overload
    def acquire(
        self,
        model: str,
        /,
        **options: Unpack[WishOptions],
    ) -> AbstractAsyncContextManager[LeaseContract]: ...
    @overload
    def acquire(
        self,
        model: str,
        second: str,
        /,
        *models: str,
        **options: Unpack[WishOptions],
    ) -> AbstractAsyncContextManager[tuple[LeaseContract, ...]]: ...
    def acquire(
        self,
        model: str,
        /,
        *models: str,
        **options: Unpack[WishOptions],
    ) -> AbstractAsyncContextManager[Any]:
        """Load or wait for the models and hold them; several names are taken all at once.

        *options* are fields of ``Wish``:

        priority: added to the models' own; higher goes first in the queue.
        keep_alive_seconds: how long the models stay afterwards: 0 releases them, -1 keeps them,
            None is as configured. At most ``max_keep_alive_seconds``.
        timeout_seconds: how long to wait at most, within ``queue_timeout_seconds``.
        autoload: whether they may be loaded for this; None is as configured.
        owner: whose request it is, for what is learned of each owner's habits.
        """
        ...

    async def lease(
        self,
        model: str,
        wish: Wish = AS_USUAL,
        *,
        on_queued: OnQueued | None = None,
    ) -> LeaseContract:
        """As ``acquire``, for callers that release by themselves.

        *on_queued* is called when the request begins to wait, and when its place has changed, at
        most about once a second. It is called on the router's loop, perhaps in another thread, and
        must return at once. A request that is served or refused at once never calls it.
        """
        ...

    def models(self) -> tuple[ModelView, ...]:
        """All models and their states: a snapshot, at once."""
        ...

    def overview(self) -> RouterView:
        """The router as a whole: a snapshot, at once."""
        ...

    async def tasks(self, model: str) -> tuple[Task, ...]:
        """What *model*'s instance works on: a snapshot; wakes nothing.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        ...

    async def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""
        ...

    async def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        """Unload *model*; a busy one drains first, or is cut off with *force*.

        Returns:
            False if it is still draining when the call returns.
        """
        ...

    async def sleep(self, model: str, *, level: SleepLevel = "full", wait: bool = True) -> bool:
        """Put *model*'s instance to sleep; a busy one drains first. One not loaded stays as it is.

        Returns:
            False if it is still draining when the call returns.
        """
        ...

    async def wake(self, model: str, *, wait: bool = True) -> None:
        """Have *model* ready: one that sleeps wakes, one that is not loaded at all is loaded.

        Without *wait* return when that has been asked for.
        """
        ...

    async def cached(self) -> tuple[StoredSnapshot, ...]:
        """Saved conversations, the latest used first: a snapshot."""
        ...

    async def purge_cache(self, model: str | None = None) -> Purged:
        """Remove all saved conversations, or those of *model*'s file.

        What contexts of loaded models hold is not touched.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[RouterEvent]]:
        """Subscribe to events; the first one is a snapshot of all models."""
        ...


class StartableRouter(RouterContract, Protocol):
    """A router that its holder starts and stops with ``async with``, in one and the same task."""

    @property
    def running(self) -> bool:
        """Whether it has been started and not yet been closed."""
        ...

    async def __aenter__(self) -> RouterContract: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...
