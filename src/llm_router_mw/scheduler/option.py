"""The ways in which an instance can be awake."""

from __future__ import annotations

from dataclasses import dataclass

from llm_router_mw.memory.ledger import Amounts
from llm_router_mw.types import Price


@dataclass(frozen=True, slots=True)
class Option:
    """A way to have an instance awake."""

    price: Price | None
    needs: Amounts
    """What it takes besides what the instance has already."""
    wakes: bool = False
    """Whether it is the sleeper's own process that wakes, where it is."""

    @property
    def is_degraded(self) -> bool:
        return self.price is not None and self.price.placement.degraded


@dataclass(frozen=True, slots=True)
class Choices:
    """All ways, the best first, and what they were made from: they are kept while that is true."""

    good: tuple[Option, ...]
    poor: tuple[Option, ...]
    """Degraded ones."""
    prices: tuple[Price, ...] | None
    held: Amounts | None
    """What a sleeper has already; None of one that has no process to wake in."""
    groups: tuple[str, ...]
    surcharge: float

    @property
    def only(self) -> Option | None:
        """The one way that there is for one without a process; None if there are several."""
        is_only = len(self.good) == 1 and not self.poor and self.held is None
        return self.good[0] if is_only else None
