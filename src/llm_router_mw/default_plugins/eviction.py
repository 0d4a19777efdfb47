"""The eviction policies that come with the package."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import Candidate, EvictionPolicy, Shortfall


class LeastRecentlyUsed:
    """The instance that has been idle longest goes first."""

    name = "lru"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        return sorted(candidates, key=lambda candidate: candidate.last_used_seconds)


@hookimpl
def llm_router_register_eviction_policies(config: RouterConfig) -> list[EvictionPolicy]:
    return [LeastRecentlyUsed()]
