"""What the scheduler wants done. The conductor carries the actions out in their order.

None of them is ever part of a cycle, so the garbage collector is spared them.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llm_router_mw.types import (
    EventKind,
    Failure,
    InstanceKey,
    InstanceState,
    Placement,
    Price,
    SleepLevel,
)


class AskPrice(Struct, frozen=True, gc=False):
    """Find out what the instance needs, and answer with ``Priced`` or ``PriceFailed``."""

    instance: InstanceKey


class Download(Struct, frozen=True, gc=False):
    """Fetch the files of the instance; answer with ``Downloaded`` or ``DownloadFailed``."""

    instance: InstanceKey
    generation: int


class CancelDownload(Struct, frozen=True, gc=False):
    """Stop fetching; what has come is kept."""

    instance: InstanceKey
    generation: int


class Start(Struct, frozen=True, gc=False):
    """Start a worker for the instance and load it; slot and memory are already reserved."""

    instance: InstanceKey
    generation: int
    price: Price | None = None
    """Where it goes and what is reserved; None where its memory is unknown."""

    @property
    def placement(self) -> Placement | None:
        """Where it goes; None leaves it to the load options."""
        return None if self.price is None else self.price.placement


class Sleep(Struct, frozen=True, gc=False):
    """Free the context, or the weights too, and keep the process; answer with ``Slept``."""

    instance: InstanceKey
    generation: int
    level: SleepLevel


class Wake(Struct, frozen=True, gc=False):
    """Load again in the same process, as at first; answer with ``Woke`` or ``LoadFailed``."""

    instance: InstanceKey
    generation: int


class Stop(Struct, frozen=True, gc=False):
    """Stop the worker politely, a load under way included."""

    instance: InstanceKey
    generation: int


class Kill(Struct, frozen=True, gc=False):
    """End the worker at once."""

    instance: InstanceKey
    generation: int


class Shed(Struct, frozen=True, gc=False):
    """Let a holder give memory back; it is not charged for it any more.

    A load that begins after this waits until the memory is really free.
    """

    holder: str
    pool: str
    n_bytes: int


class Grant(Struct, frozen=True, gc=False):
    """The request has what it asked for: one lease per instance, in its order."""

    request: int
    leases: tuple[int, ...]


class Reject(Struct, frozen=True, gc=False):
    """The request ends with this failure."""

    request: int
    failure: Failure


class Revoke(Struct, frozen=True, gc=False):
    """The lease has ended from our side; cancel what runs under it."""

    lease: int
    failure: Failure


class SetTimer(Struct, frozen=True, gc=False):
    """Send a tick at this time; replaces the timer set before. None needs none."""

    at_seconds: float | None


class Announce(Struct, frozen=True, gc=False, kw_only=True):
    """Tell observers and the log what happened to an instance, and why."""

    instance: InstanceKey
    kind: EventKind
    state: InstanceState
    reason: str
    data: dict[str, Any] = {}


Action = (
    AskPrice
    | Download
    | CancelDownload
    | Start
    | Sleep
    | Wake
    | Stop
    | Kill
    | Shed
    | Grant
    | Reject
    | Revoke
    | SetTimer
    | Announce
)
