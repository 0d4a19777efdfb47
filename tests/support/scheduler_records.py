"""What is written down about a random world: workers, requests, leases, and the facts of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llm_router_mw.scheduler import events
from llm_router_mw.scheduler.actions import Action, Announce, Kill, Shed, Sleep, Stop
from llm_router_mw.types import (
    EventKind,
    Failure,
    InstanceKey,
    InstanceState,
    Price,
    SleepLevel,
)

Phase = Literal["loading", "ready", "falling_asleep", "asleep", "waking", "stopping"]
Sizes = Mapping[str, int]


class Violation(AssertionError):
    """The scheduler broke a promise."""

    def __init__(self, promise: str, message: str) -> None:
        super().__init__(f"{promise}: {message}")
        self.promise = promise


@dataclass(slots=True)
class Worker:
    """A process, from the action that starts it to its exit."""

    generation: int
    price: Price | None
    phase: Phase = "loading"
    is_lowered: bool = False
    """Whether it slept when it was told to stop: then it takes no slot."""
    level: SleepLevel | None = None
    begun: bool = False
    """Whether its load has really begun, so that it can no longer be deferred."""
    failed: bool = False
    """Whether it said that its load failed; its exit follows."""
    ready_at: float = 0.0
    idle_since: float = 0.0
    reserved: Sizes = field(default_factory=dict)
    """What it was given, or was measured to need."""
    low: dict[str, int] = field(default_factory=dict)
    """The least that it must be charged with, by pool."""
    high: dict[str, int] = field(default_factory=dict)
    """The most that it may be charged with."""
    as_it_slept: tuple[Sizes, dict[str, int], dict[str, int]] = field(
        default_factory=lambda: ({}, {}, {})
    )
    """``reserved``, ``low`` and ``high`` before it was woken."""
    leases: set[int] = field(default_factory=set)
    guessed: bool = False
    """Whether it was started for a prediction, and nobody has used it yet."""

    @property
    def takes_slot(self) -> bool:
        return self.phase != "asleep" and not self.is_lowered


@dataclass(frozen=True, slots=True)
class Asked:
    """A request without an answer."""

    event: events.Request
    since: float
    named: tuple[tuple[InstanceKey, str], ...]
    """What must be loaded for it, companions too, each with its model."""
    wanted: frozenset[InstanceKey]
    priority: int
    """Its own and that of its model, as they were when it came."""

    @property
    def id(self) -> int:
        return self.event.id

    @property
    def keys(self) -> tuple[InstanceKey, ...]:
        return self.event.instances


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that is out."""

    key: InstanceKey
    model: str
    since: float
    keep_alive: float | None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A start or a wake, and what there was when it was decided."""

    key: InstanceKey
    worker: Worker
    needs: Sizes
    room: Sizes
    slots: int
    """Of others."""
    workers: int
    """Of others."""
    rivals: tuple[InstanceKey, ...]
    """Resident members of a group of which one may be."""
    is_wake: bool


@dataclass(frozen=True, slots=True)
class Lowered:
    """A worker that was told to sleep or to end."""

    key: InstanceKey
    action: Sleep | Stop | Kill
    phase: Phase
    """That it was in."""
    leases: frozenset[int]
    """That were still out."""
    worker: Worker
    overdrawn: bool
    """Whether more was held of something than there is for us."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Memory of ours that is no instance's."""

    sizes: Sizes
    sheddable: bool


@dataclass(slots=True)
class Step:
    """One event, what the scheduler wanted, and the facts that the promises are about."""

    event: events.Event
    now: float
    actions: list[Action] = field(default_factory=list)
    admitted: list[Admitted] = field(default_factory=list)
    lowered: list[Lowered] = field(default_factory=list)
    granted: list[tuple[Asked, tuple[Phase | None, ...]]] = field(default_factory=list)
    rejected: list[tuple[Asked, Failure]] = field(default_factory=list)
    revoked: list[tuple[Held, Failure]] = field(default_factory=list)
    announced: list[Announce] = field(default_factory=list)
    shed: list[Shed] = field(default_factory=list)
    fetched: list[InstanceKey] = field(default_factory=list)
    """Whose files began to be downloaded."""
    lost: list[Held] = field(default_factory=list)
    """Leases of a worker that crashed."""
    waiting: tuple[Asked, ...] = ()
    """Who waited before."""
    before: dict[InstanceKey, InstanceState] = field(default_factory=dict)
    """States of those with a worker, as everybody was told of them."""

    def announced_as(self, kind: EventKind) -> set[InstanceKey]:
        return {each.instance for each in self.announced if each.kind == kind}


@dataclass(slots=True)
class Trouble:
    """Failed loads of an instance."""

    count: int = 0
    until: float = 0.0
    second_chance: bool = False
    """Whether it ran out of memory once, and is tried again."""
