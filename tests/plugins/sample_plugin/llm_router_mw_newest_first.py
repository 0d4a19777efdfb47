"""A whole plugin: one eviction policy, found by its entry point."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw import RouterConfig, hookimpl
from llm_router_mw.protocols import Candidate, EvictionPolicy, Shortfall


class NewestFirst:
    """Gives up the instance that was used last."""

    name = "newest-first"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        """Return the candidates, the most recently used one first."""
        return sorted(candidates, key=lambda candidate: -candidate.last_used_seconds)


@hookimpl
def llm_router_register_eviction_policies(config: RouterConfig) -> Sequence[EvictionPolicy]:
    """Supply the policy; ``eviction_policy="newest-first"`` chooses it."""
    return [NewestFirst()]
