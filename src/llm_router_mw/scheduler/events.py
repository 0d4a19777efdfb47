"""What the scheduler is told. Each event is plain data; ``now`` travels beside it.

None of them is ever part of a cycle, so the garbage collector is spared them.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.types import Failure, InstanceKey, PoolReading, Price, SleepLevel


class Request(Struct, frozen=True, gc=False, kw_only=True):
    """Somebody wants all of ``instances`` at the same time."""

    id: int
    instances: tuple[InstanceKey, ...]
    models: tuple[str, ...]
    """The names under which they were asked for, one per instance."""
    autoload: bool = True
    hold: bool = True
    """False asks only that they be loaded; the grant then carries no leases."""
    priority: int = 0
    """Added to the model's own; higher goes first."""
    keep_alive_seconds: float | None = None
    """How long the instances stay once this request is done: 0 releases, -1 keeps, None is as
    configured."""
    timeout_seconds: float | None = None
    """The request's own bound on its time in the queue."""


class Cancelled(Struct, frozen=True, gc=False):
    """The request no longer waits."""

    id: int


class Released(Struct, frozen=True, gc=False):
    """A lease has ended."""

    lease: int


class Unload(Struct, frozen=True, gc=False, kw_only=True):
    """Somebody wants a model gone; a busy instance drains first unless ``force``."""

    instance: InstanceKey
    model: str
    force: bool = False


class PutToSleep(Struct, frozen=True, gc=False, kw_only=True):
    """Somebody wants an instance asleep; a busy one drains first."""

    instance: InstanceKey
    level: SleepLevel


class Predicted(Struct, frozen=True, gc=False, kw_only=True):
    """The model will probably be asked for next: load it if that costs nobody anything."""

    instance: InstanceKey
    model: str


class Priced(Struct, frozen=True, gc=False, kw_only=True):
    """What the placements of an instance are charged, best first; replaces what was known.

    No prices mean that its memory is unknown: then limits of memory do not apply to it.
    """

    instance: InstanceKey
    prices: tuple[Price, ...]
    is_missing: bool = False
    """Whether its files must be downloaded before it can be loaded."""


class PriceFailed(Struct, frozen=True, gc=False, kw_only=True):
    """The instance cannot be priced, and so not be loaded."""

    instance: InstanceKey
    failure: Failure


class Downloaded(Struct, frozen=True, gc=False, kw_only=True):
    """The files of the instance are here."""

    instance: InstanceKey
    generation: int


class DownloadFailed(Struct, frozen=True, gc=False, kw_only=True):
    """The files of the instance could not be fetched."""

    instance: InstanceKey
    generation: int
    failure: Failure


class Loaded(Struct, frozen=True, gc=False, kw_only=True):
    """The instance is ready for tasks."""

    instance: InstanceKey
    generation: int
    load_seconds: float = 0.0
    measured: Mapping[str, int] | None = None
    """Bytes by pool that it was seen to hold; None believes the price."""


class LoadFailed(Struct, frozen=True, gc=False, kw_only=True):
    """A load or a wake ended without an instance; the exit of the worker follows."""

    instance: InstanceKey
    generation: int
    failure: Failure
    out_of_memory: bool = False


class Deferred(Struct, frozen=True, gc=False, kw_only=True):
    """A load or a wake was held back before it began: somebody else on the machine took the room.

    It goes on waiting, and is no failure.
    """

    instance: InstanceKey
    generation: int
    reason: str


class Slept(Struct, frozen=True, gc=False, kw_only=True):
    """The instance sleeps; ``measured`` is what its process still holds, by pool."""

    instance: InstanceKey
    generation: int
    sleep_seconds: float = 0.0
    measured: Mapping[str, int] | None = None


class Woke(Struct, frozen=True, gc=False, kw_only=True):
    """The instance is awake, and ready for tasks."""

    instance: InstanceKey
    generation: int
    wake_seconds: float = 0.0
    measured: Mapping[str, int] | None = None


class WorkerExited(Struct, frozen=True, gc=False, kw_only=True):
    """The worker is gone and its memory with it."""

    instance: InstanceKey
    generation: int
    reason: str


class MemoryObserved(Struct, frozen=True, gc=False, kw_only=True):
    """A look at the pools, and at what instances hold of them."""

    pools: Mapping[str, PoolReading]
    instances: Mapping[InstanceKey, Mapping[str, int]] = {}


class Held(Struct, frozen=True, gc=False, kw_only=True):
    """What something of ours takes that is no instance; replaces what was said before."""

    holder: str
    """Its name."""
    bytes_by_pool: Mapping[str, int]
    sheddable: bool = False
    """Whether it gives memory back when a ``Shed`` asks for it."""


class Catalogued(Struct, frozen=True, gc=False, kw_only=True):
    """The models that exist now, and what was said about each."""

    terms: Mapping[str, Terms]


class Tick(Struct, frozen=True, gc=False):
    """The time of the last ``SetTimer`` has come."""


class Shutdown(Struct, frozen=True, gc=False):
    """The router closes: nothing is granted or started from here on."""


Event = (
    Request
    | Cancelled
    | Released
    | Unload
    | PutToSleep
    | Predicted
    | Priced
    | PriceFailed
    | Downloaded
    | DownloadFailed
    | Loaded
    | LoadFailed
    | Deferred
    | Slept
    | Woke
    | WorkerExited
    | MemoryObserved
    | Held
    | Catalogued
    | Tick
    | Shutdown
)
