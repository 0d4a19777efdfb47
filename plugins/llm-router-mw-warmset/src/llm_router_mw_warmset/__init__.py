"""Keeps a set of models together by time of day, as a plugin of llm-router-mw."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING

from llm_router_mw.config import plugin_options
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.memory.placement import AutoPlacement
from llm_router_mw_warmset.options import Options
from llm_router_mw_warmset.policies import WarmsetEviction, WarmsetPlacement
from llm_router_mw_warmset.preload import preloading
from llm_router_mw_warmset.schedule import Schedule

if TYPE_CHECKING:
    from llm_router_mw.config import RouterConfig
    from llm_router_mw.protocols import EvictionPolicy, PlacementPolicy, RouterContract

__all__ = ["WarmsetPlugin"]


class WarmsetPlugin:
    """Of each router: its sets, and what goes by them."""

    llm_router_api = 1

    def __init__(self) -> None:
        self._schedule = Schedule({}, datetime.now)

    @hookimpl
    def llm_router_register_eviction_policies(self, config: RouterConfig) -> list[EvictionPolicy]:
        return [WarmsetEviction(self._told(config))]

    @hookimpl
    def llm_router_register_placement_policies(self, config: RouterConfig) -> list[PlacementPolicy]:
        return [WarmsetPlacement(self._told(config), AutoPlacement(config.models_memory_margin))]

    @hookimpl
    def llm_router_lifespan(
        self, router: RouterContract
    ) -> AbstractAsyncContextManager[None] | None:
        return preloading(router, self._schedule) if self._schedule.sets else None

    def _told(self, config: RouterConfig) -> Schedule:
        self._schedule.sets = plugin_options(config, "warmset", Options).sets
        return self._schedule
