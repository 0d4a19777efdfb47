"""The eviction policies that come with the package."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw.config import RouterConfig
from llm_router_mw.default_plugins.cost_aware import CostAware
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import (
    HEAT_HALF_LIFE_SECONDS,
    Candidate,
    EvictionPolicy,
    Shortfall,
)


class LeastRecentlyUsed:
    """The instance that has been idle longest goes first."""

    name = "lru"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        return sorted(candidates, key=lambda candidate: candidate.last_used_seconds)


class LeastFrequentlyUsed:
    """The instance that was used least goes first; a use counts half after a while."""

    name = "lfu"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        def heat(each: Candidate) -> tuple[float, float]:
            idle = now - each.last_used_seconds
            return each.heat * 2.0 ** (-idle / HEAT_HALF_LIFE_SECONDS), each.last_used_seconds

        return sorted(candidates, key=heat)


class LargestFirst:
    """The instance that frees most of what is lacking goes first: few are evicted."""

    name = "largest-first"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        def size(each: Candidate) -> tuple[int, float]:
            return -each.bytes_freed(shortfall.device), each.last_used_seconds

        return sorted(candidates, key=size)


@hookimpl
def llm_router_register_eviction_policies(config: RouterConfig) -> list[EvictionPolicy]:
    return [LeastRecentlyUsed(), LeastFrequentlyUsed(), LargestFirst(), CostAware()]
