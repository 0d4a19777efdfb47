"""What is done before a context is freed, and after there is one again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from llm_router_mw.types import (
    InstanceKey,
    Purged,
    SequenceInfo,
    Snapshot,
    Spare,
    Step,
    StoredSnapshot,
)
from llm_router_mw.wire import SnapshotNews


class InstanceHandle(Protocol):
    """One instance, as a sleep handler sees it."""

    @property
    def key(self) -> InstanceKey: ...

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of all models that it serves."""
        ...

    @property
    def identity(self) -> str:
        """What a saved state must have been made with to be of use to it.

        Empty if nothing is to be kept of it.
        """
        ...

    @property
    def hurried(self) -> bool:
        """Whether requests wait for its memory."""
        ...

    @property
    def closing(self) -> bool:
        """Whether the router is closing."""
        ...

    async def sequences(self) -> Sequence[SequenceInfo]:
        """Return what its context holds of conversations, longest idle first.

        Raises:
            LLMRouterError: it is gone, or it is too late: its memory is being freed.
        """
        ...

    async def save(self, sequence: int, path: str) -> Snapshot:
        """Save *sequence* as the file *path*.

        Raises:
            LLMRouterError: it could not be saved, and there is no file; or as ``sequences``.
        """
        ...

    def offer(self, snapshots: Sequence[Snapshot], spares: Sequence[Spare] = ()) -> None:
        """Let it go on from *snapshots*, and write *spares* when its context overflows.

        They come in addition to earlier ones, and it keeps them while it sleeps.
        """
        ...

    def withdraw(self, paths: Sequence[str]) -> None:
        """Take back what was offered, snapshots and spares."""
        ...

    def memory(self) -> Mapping[str, int]:
        """Return what it is known to hold of each memory pool, in bytes."""
        ...


@runtime_checkable
class SleepHandler(Protocol):
    """Is called around the end of a context. Supplied by ``llm_router_register_sleep_handlers``.

    One that raises, or takes longer than ``sleep_handler_timeout_seconds``, is passed over.
    """

    name: str

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        """Keep what is worth it: the instance goes down to *level* when this returns.

        Nobody uses it any more, and who asks for it waits.
        """
        ...

    async def resume(self, handle: InstanceHandle) -> None:
        """Give back what is of use: the instance has just been loaded, or woken.

        The first request waits for this only a moment.
        """
        ...


@runtime_checkable
class SnapshotStore(SleepHandler, Protocol):
    """A sleep handler that keeps snapshots over the life of a router."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Hold what it needs while the router runs; left when all instances are gone."""
        ...

    def heard(self, handle: InstanceHandle, news: SnapshotNews) -> None:
        """Take what a worker says about the files that it was offered; must return at once."""
        ...

    def left(self, handle: InstanceHandle) -> None:
        """Note that the process of this instance is gone; must return at once."""
        ...

    def snapshots(self) -> Sequence[StoredSnapshot]:
        """Return what there is, at once."""
        ...

    async def purge(self, path: str | None = None) -> Purged:
        """Remove all snapshots, or those of the model's file *path*."""
        ...


@runtime_checkable
class KeepsSequences(Protocol):
    """An engine's instance that can save and restore what its context holds."""

    async def sequences(self) -> Sequence[SequenceInfo]: ...

    async def save(self, sequence: int, path: str) -> Snapshot: ...

    def offer(self, snapshots: Sequence[Snapshot], spares: Sequence[Spare]) -> None: ...

    def withdraw(self, paths: Sequence[str]) -> None: ...

    def listen(self, listener: Callable[[SnapshotNews], None]) -> None:
        """Have *listener* called, on the router's loop, with all that it says of the files."""
        ...
