"""Who makes room, and who goes where, while a set's time lasts."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw.protocols import Candidate, PlacementPolicy, Shortfall
from llm_router_mw.types import Device, Model, Placement
from llm_router_mw_warmset.schedule import Schedule


class WarmsetEviction:
    """LRU, but what belongs to a set of this hour goes last."""

    name = "warmset"

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        """Return *candidates*, the best victim first."""
        kept = self._schedule.models()
        return sorted(
            candidates,
            key=lambda each: (not kept.isdisjoint(each.models), each.last_used_seconds),
        )


class WarmsetPlacement:
    """The usual places, but others keep off the devices of a set of this hour."""

    name = "warmset"

    def __init__(self, schedule: Schedule, usual: PlacementPolicy) -> None:
        self._schedule = schedule
        self._usual = usual

    def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
        """Return the placements that are possible, best first."""
        placements = list(self._usual.place(model, devices))
        if model.id in self._schedule.models():
            return placements
        reserved = self._schedule.devices()
        # Stable: among those that keep off, and among the others, the usual order stays.
        return sorted(
            placements,
            key=lambda each: (each.degraded, not reserved.isdisjoint(each.devices)),
        )
