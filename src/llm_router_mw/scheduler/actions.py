"""What the scheduler wants done. The conductor carries the actions out in their order."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llm_router_mw.types import EventKind, Failure, InstanceKey, InstanceState


class Start(Struct, frozen=True):
    """Start a worker for the instance and load it; its slot is already reserved."""

    instance: InstanceKey
    generation: int


class Stop(Struct, frozen=True):
    """Stop the worker politely, a load under way included."""

    instance: InstanceKey
    generation: int


class Kill(Struct, frozen=True):
    """End the worker at once."""

    instance: InstanceKey
    generation: int


class Grant(Struct, frozen=True):
    """The request has what it asked for: one lease per instance, in its order."""

    request: int
    leases: tuple[int, ...]


class Reject(Struct, frozen=True):
    """The request ends with this failure."""

    request: int
    failure: Failure


class Revoke(Struct, frozen=True):
    """The lease has ended from our side; cancel what runs under it."""

    lease: int
    failure: Failure


class SetTimer(Struct, frozen=True):
    """Send a tick at this time; replaces the timer set before. None needs none."""

    at_seconds: float | None


class Announce(Struct, frozen=True, kw_only=True):
    """Tell observers and the log what happened to an instance, and why."""

    instance: InstanceKey
    kind: EventKind
    state: InstanceState
    reason: str
    data: dict[str, Any] = {}


Action = Start | Stop | Kill | Grant | Reject | Revoke | SetTimer | Announce
