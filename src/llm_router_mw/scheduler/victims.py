"""Asks the eviction policy, and trusts it no further than needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from llm_router_mw.protocols import Candidate, EvictionPolicy

logger = logging.getLogger("llm_router_mw.scheduler")


def ranked(
    policy: EvictionPolicy, candidates: Sequence[Candidate], shortfall: int, now: float
) -> list[Candidate]:
    """Return all *candidates*, best victim first, as *policy* ranks them.

    What the policy made up or named twice is dropped; what it left out follows in LRU order; if
    it raises, LRU decides alone. A policy can thus neither evict a busy instance nor block one.
    """
    by_age = sorted(candidates, key=lambda candidate: candidate.last_used_seconds)
    try:
        proposed = list(policy.rank(tuple(by_age), shortfall, now))
    except Exception:
        logger.exception("eviction policy %r failed; using LRU for this decision", policy.name)
        return by_age
    known = {candidate.instance: candidate for candidate in by_age}
    order: list[Candidate] = []
    for candidate in [*proposed, *by_age]:
        if isinstance(candidate, Candidate) and candidate.instance in known:
            order.append(known.pop(candidate.instance))
    return order
