"""What there is too little of, though all else were gone; as words and as figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llm_router_mw.memory.ledger import Amounts
from llm_router_mw.scheduler.demand import SLOTS, WORKERS
from llm_router_mw.units import MIB

Shortage = Mapping[str, tuple[int, int]]
"""Resource → how much is needed, and how much there is."""


def lacking(needs: Amounts, there: Callable[[str], int]) -> Shortage:
    """Return what there is too little of for *needs*; *there* says how much there is of a resource.

    Counts of instances are left out: see ``together.too_many``.
    """
    return {
        resource: (amount, there(resource))
        for resource, amount in needs.items()
        if resource not in (SLOTS, WORKERS) and amount > there(resource)
    }


def total(short: Shortage) -> int:
    """Return how much is lacking in all."""
    return sum(needed - there for needed, there in short.values())


def in_words(short: Shortage) -> str:
    """Return how much is needed of how much, by memory pool."""
    return "; ".join(
        f"{resource} needs {needed / MIB:.0f} MiB of {max(0, there) / MIB:.0f} MiB"
        for resource, (needed, there) in short.items()
    )


def by_device(short: Shortage) -> dict[str, dict[str, int]]:
    """Return the same for a program to read, in bytes."""
    return {
        resource: {"needed_bytes": needed, "available_bytes": max(0, there)}
        for resource, (needed, there) in short.items()
    }
