"""What was said about each model, and what that means for an instance that several share."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from llm_router_mw.types import InstanceKey, SleepLevel, Step

OFF = -1.0
"""Of a time limit: there is none."""

LADDER: tuple[Step, ...] = ("context", "full", "stop")
"""The steps down, mildest first."""


class Companion(Struct, frozen=True):
    """A model that must be resident together with another."""

    model: str
    instance: InstanceKey


class Terms(Struct, frozen=True, kw_only=True):
    """What was said about one model, or what holds for an instance that several models share."""

    priority: int = 0
    """Higher goes first in the queue."""
    pinned: bool = False
    """Never a victim."""
    sleep_idle_seconds: float = OFF
    sleep_level: SleepLevel = "full"
    unload_idle_seconds: float = OFF
    evict_to: Step = "stop"
    """How far down a victim goes, as long as that frees enough."""
    exclusive_groups: tuple[str, ...] = ()
    """At most one member of each is resident."""
    companions: tuple[Companion, ...] = ()
    """All of these are resident when this one is."""


NOTHING_SAID = Terms()


def shared(terms: Iterable[Terms]) -> Terms:
    """Return what holds for an instance that models with these *terms* share.

    It is pinned if any of them is; its idle limits are the longest; a victim goes down as far as
    the mildest says; groups add up.
    """
    all_terms = tuple(terms)
    if len(all_terms) <= 1:
        return all_terms[0] if all_terms else NOTHING_SAID
    return Terms(
        priority=max(each.priority for each in all_terms),
        pinned=any(each.pinned for each in all_terms),
        sleep_idle_seconds=_longest(each.sleep_idle_seconds for each in all_terms),
        sleep_level=min((each.sleep_level for each in all_terms), key=LADDER.index),
        unload_idle_seconds=_longest(each.unload_idle_seconds for each in all_terms),
        evict_to=min((each.evict_to for each in all_terms), key=LADDER.index),
        exclusive_groups=_union(each.exclusive_groups for each in all_terms),
        companions=_union(each.companions for each in all_terms),
    )


def _longest(limits: Iterable[float]) -> float:
    values = tuple(limits)
    return OFF if any(value < 0 for value in values) else max(values)


def _union(parts: Iterable[tuple]) -> tuple:  # type: ignore[type-arg]
    return tuple(dict.fromkeys(item for part in parts for item in part))
