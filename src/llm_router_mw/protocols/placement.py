"""Where a model may go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from llm_router_mw.types import Device, Model, Placement


@runtime_checkable
class PlacementPolicy(Protocol):
    """Says where a model may go. Supplied by ``llm_router_register_placement_policies``."""

    name: str

    def place(self, model: Model, devices: Sequence[Device]) -> Sequence[Placement]:
        """Return the placements that are possible, best first. Pure; called off the event loop."""
        ...
