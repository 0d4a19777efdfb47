"""Evicts what is cheapest to miss: the idea of GreedyDual-Size-Frequency, for models."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from typing import Final

from llm_router_mw.protocols import HEAT_HALF_LIFE_SECONDS, Candidate, Shortfall

_FADING: Final = -log(2) / HEAT_HALF_LIFE_SECONDS
_MEMORY: Final = 10.0
"""How much the uses of all time count beside those of late.

Habits change, but what was used rarely in the last minutes is told apart by its history alone.
Chosen on simulated traces; anything above 3 does nearly as well.
"""


class CostAware:
    """The instance goes first whose return is unlikely, quick to load, or frees much.

    What it would cost to miss it, per byte that it frees: its chance of reuse × the seconds of its
    last load. The chance is judged by its heat (uses that fade with time) and by its share of all
    uses, in proportion to each other.
    """

    name = "cost-aware"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        """Return *candidates*, the cheapest loss first; of equal ones the longest idle."""
        resource = shortfall.device
        heats = [each.heat * exp(_FADING * (now - each.last_used_seconds)) for each in candidates]
        uses = [each.uses for each in candidates]
        # In the unit of heat, so that both parts can be added.
        per_use = _MEMORY * sum(heats) / (sum(uses) or 1)
        order = [
            (
                (heat + per_use * n) * each.load_seconds / (each.freed.get(resource) or 1),
                each.last_used_seconds,
                place,
            )
            for place, (heat, n, each) in enumerate(zip(heats, uses, candidates, strict=True))
        ]
        order.sort()
        return [candidates[place] for _, _, place in order]
