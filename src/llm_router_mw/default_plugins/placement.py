"""The placement policy that comes with the package: ``auto``."""

from __future__ import annotations

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.memory.placement import AutoPlacement
from llm_router_mw.protocols import PlacementPolicy


@hookimpl
def llm_router_register_placement_policies(config: RouterConfig) -> list[PlacementPolicy]:
    return [AutoPlacement(config.models_memory_margin)]
