"""What runs instances: processes of ours, or foreign servers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from msgspec import Struct

from llm_router_mw.protocols.stream import DeltaStream
from llm_router_mw.types import ModelInfo, SleepLevel, Task
from llm_router_mw.wire import Load


class ExitReport(Struct, frozen=True, kw_only=True):
    """How a worker ended."""

    exit_code: int | None
    """As ``subprocess``: negative is the signal's number; None if it never started."""
    log_tail: str = ""
    """The last lines that it wrote."""
    offence: str = ""
    """Why it was ended by us (``was stuck``); empty if it ended by itself or as it was told."""


class SleepReport(Struct, frozen=True, kw_only=True):
    """What falling asleep has brought."""

    seconds: float
    """How long it took."""
    private_bytes: int | None = None
    """Memory of the host that the process still holds and shares with no file: anonymous and
    shared memory. None if unknown."""
    freed_bytes: int | None = None
    """By how much that is less than before; None if unknown."""


@runtime_checkable
class EngineInstance(Protocol):
    """One running instance, as the conductor drives it."""

    @property
    def pid(self) -> int | None: ...

    async def load(self, order: Load, progress: Callable[[float], None]) -> ModelInfo:
        """Load what *order* says; *progress* is told fractions from 0 to 1.

        Raises:
            ModelLoadError: it cannot be loaded; ``out_of_memory`` says whether for lack of that.
            LLMRouterError: something else is wrong, or its process ended.
        """
        ...

    async def sleep(self, level: SleepLevel) -> SleepReport:
        """Free the context, or the weights too; the process stays. All requests must be over.

        From ``context`` it may go on to ``full``. A task that is submitted afterwards, but before
        ``wake``, fails with an error that asks to try again.

        Raises:
            LLMRouterError: requests are under way, nothing is loaded, or the process ended.
        """
        ...

    async def wake(self, progress: Callable[[float], None]) -> ModelInfo:
        """Load again what the first order said, where it said, without a warm-up.

        Raises:
            LLMRouterError: as ``load``. The instance then holds as little as after a ``full``
                sleep, and can be woken again or stopped.
        """
        ...

    def submit(self, task: Task, on_finished: Callable[[], None]) -> DeltaStream:
        """Start *task*; *on_finished* is called once when the engine no longer works on it."""
        ...

    async def stop(self, timeout_seconds: float) -> None:
        """Ask politely, then terminate, then kill; returns when it is gone."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    async def wait(self) -> ExitReport:
        """Return when the instance is gone and its memory with it."""
        ...


@runtime_checkable
class EngineFactory(Protocol):
    """Makes instances. Supplied by ``llm_router_register_engines``."""

    name: str

    def running(self) -> AbstractAsyncContextManager[None]:
        """Hold what the factory shares between instances (a spare worker) while the router runs."""
        ...

    async def create(self) -> EngineInstance:
        """Return an instance that is ready to load."""
        ...
