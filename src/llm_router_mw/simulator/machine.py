"""The memory of a machine that need not exist, and where models go on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_router_mw.simulator.trace import ModelFacts
from llm_router_mw.types import HOST, Placement, PoolReading, Price


@dataclass(frozen=True)
class Machine:
    """Pools of memory by name; ``host`` is the host's own, every other one a GPU's."""

    pools: Mapping[str, int]
    margin_bytes: int = 0
    """What must stay free on each."""

    def readings(self) -> dict[str, PoolReading]:
        """Return a look at the pools while nothing is loaded."""
        return {
            pool: PoolReading(total_bytes=size, free_bytes=size, margin_bytes=self.margin_bytes)
            for pool, size in self.pools.items()
        }

    @property
    def capacity_bytes(self) -> int:
        """What models may take of the pools that they are put on, all together."""
        return sum(max(0, self.pools[pool] - self.margin_bytes) for pool in self._places)

    @property
    def _places(self) -> list[str]:
        return [pool for pool in self.pools if pool != HOST] or list(self.pools)

    def prices(self, facts: ModelFacts) -> tuple[Price, ...]:
        """Return where a model may go, best first.

        Each GPU that is large enough for all of it, in the order of their names; only if there is
        none, all of them together, by their size. Without a GPU it goes on the host.
        """
        places = self._places
        large = [
            pool for pool in places if self.pools[pool] - self.margin_bytes >= facts.size_bytes
        ]
        if large:
            return tuple(_price(facts, {pool: 1.0}) for pool in large)
        total = sum(self.pools[pool] for pool in places)
        return (_price(facts, {pool: self.pools[pool] / total for pool in places}),)


def _price(facts: ModelFacts, shares: Mapping[str, float]) -> Price:
    weights = facts.size_bytes - facts.context_bytes - facts.overhead_bytes

    def split(size: int) -> dict[str, int]:
        return {pool: round(size * share) for pool, share in shares.items()}

    return Price(
        placement=Placement(
            devices=tuple(pool for pool in shares if pool != HOST),
            n_gpu_layers=0 if HOST in shares else -1,
            split_mode="layer" if len(shares) > 1 else "none",
        ),
        bytes_by_pool=split(facts.size_bytes),
        context_bytes_by_pool=split(facts.context_bytes),
        weights_bytes_by_pool=split(weights),
    )
