"""Whom to send away: asks the eviction policy, trusts it no further than needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from llm_router_mw.faults import Faults
from llm_router_mw.memory.ledger import Amounts
from llm_router_mw.protocols import Candidate, EvictionPolicy, Shortfall


class Trusted:
    """An eviction policy that cannot fail: where *policy* does, it has nothing to propose."""

    def __init__(self, policy: EvictionPolicy, faults: Faults) -> None:
        """What *policy* raises is told to *faults*."""
        self.name = policy.name
        self._policy = policy
        self._faults = faults

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        """Return what the policy proposes."""
        try:
            return list(self._policy.rank(candidates, shortfall, now))
        except Exception as error:
            self._faults.add("eviction policy", self.name, error)
            return ()


def chosen(
    policy: Trusted,
    idle: Sequence[Candidate],
    busy: Sequence[Candidate],
    lacking: Amounts,
    now: float,
) -> list[Candidate] | None:
    """Return as many victims as *lacking* needs, idle ones first; None if all are not enough."""
    if len(idle) + len(busy) == 1:  # then there is nothing to rank
        only = (*idle, *busy)
        return list(only) if frees(only[0], lacking) else None
    shortfall = _shortfall(lacking)
    order = [ranked(policy, each, shortfall, now) for each in (idle, busy) if each]
    taken = _taken(chain.from_iterable(order), lacking)
    # One alone is needed, or it would not have been taken.
    return taken if taken is None or len(taken) == 1 else _spared(taken, lacking)


def ranked(
    policy: Trusted, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
) -> Iterator[Candidate]:
    """Yield all *candidates*, best victim first, as *policy* ranks them.

    What the policy made up or named twice is dropped; what it left out follows in LRU order; if
    it fails, LRU decides alone. A policy can thus neither evict a busy instance nor block one.
    """
    if len(candidates) == 1:
        yield candidates[0]
        return
    known = set(map(id, candidates))
    for candidate in policy.rank(tuple(candidates), shortfall, now):  # mostly a few are enough
        if id(candidate) in known:
            known.discard(id(candidate))
            yield candidate
    yield from _by_age([candidate for candidate in candidates if id(candidate) in known])


def frees(candidate: Candidate, lacking: Amounts) -> bool:
    """Whether *candidate* alone frees all that is *lacking*."""
    freed = candidate.freed
    return all(freed.get(resource, 0) >= amount for resource, amount in lacking.items())


def _by_age(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: candidate.last_used_seconds)


def _shortfall(lacking: Mapping[str, int]) -> Shortfall:
    # Bytes dwarf slots, so a pool that is short comes before a slot that is.
    device = max(lacking, key=lambda resource: lacking[resource])
    return Shortfall(device=device, bytes=lacking[device], lacking=lacking)


def _taken(order: Iterable[Candidate], lacking: Amounts) -> list[Candidate] | None:
    """Return the first of *order* that free enough together; None if all do not."""
    left = dict(lacking)
    taken: list[Candidate] = []
    if not left:
        return taken
    for candidate in order:
        useful = [resource for resource in left if candidate.freed.get(resource, 0) > 0]
        if not useful:
            continue
        taken.append(candidate)
        for resource in useful:
            left[resource] -= candidate.freed[resource]
            if left[resource] <= 0:
                del left[resource]
        if not left:
            return taken
    return None


def _spared(taken: list[Candidate], lacking: Amounts) -> list[Candidate]:
    """Return *taken* without those that are not needed after all; the last ranked first."""
    surplus = {
        resource: sum(each.freed.get(resource, 0) for each in taken) - amount
        for resource, amount in lacking.items()
    }
    kept = list(taken)
    for candidate in reversed(taken):
        if all(candidate.freed.get(resource, 0) <= surplus[resource] for resource in surplus):
            kept.remove(candidate)
            for resource in surplus:
                surplus[resource] -= candidate.freed.get(resource, 0)
    return kept
