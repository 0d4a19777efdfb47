"""What the scheduler is told. Each event is plain data; ``now`` travels beside it."""

from __future__ import annotations

from msgspec import Struct

from llm_router_mw.types import Failure, InstanceKey


class Request(Struct, frozen=True, kw_only=True):
    """Somebody wants all of ``instances`` at the same time."""

    id: int
    instances: tuple[InstanceKey, ...]
    models: tuple[str, ...]
    """The names under which they were asked for, one per instance."""
    autoload: bool = True
    hold: bool = True
    """False asks only that they be loaded; the grant then carries no leases."""


class Cancelled(Struct, frozen=True):
    """The request no longer waits."""

    id: int


class Released(Struct, frozen=True):
    """A lease has ended."""

    lease: int


class Unload(Struct, frozen=True, kw_only=True):
    """Somebody wants a model gone; a busy instance drains first unless ``force``."""

    instance: InstanceKey
    model: str
    force: bool = False


class Loaded(Struct, frozen=True, kw_only=True):
    """The instance is ready for tasks."""

    instance: InstanceKey
    generation: int
    load_seconds: float = 0.0


class LoadFailed(Struct, frozen=True, kw_only=True):
    """The load ended without an instance; the exit of the worker follows."""

    instance: InstanceKey
    generation: int
    failure: Failure


class WorkerExited(Struct, frozen=True, kw_only=True):
    """The worker is gone and its memory with it."""

    instance: InstanceKey
    generation: int
    reason: str


class Tick(Struct, frozen=True):
    """The time of the last ``SetTimer`` has come."""


class Shutdown(Struct, frozen=True):
    """The router closes: nothing is granted or started from here on."""


Event = (
    Request | Cancelled | Released | Unload | Loaded | LoadFailed | WorkerExited | Tick | Shutdown
)
