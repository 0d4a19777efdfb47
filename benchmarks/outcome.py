"""What was measured in one scenario, as it is kept and shown."""

from __future__ import annotations

import statistics
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.figures import Spread, advantages, spread

OURS = "ours"
OURS_SPLIT = "ours-split"
"""With a part of the context for each request, as llama-server's side ``split``."""
_OURS = (OURS, OURS_SPLIT)


class Metric(Struct, frozen=True, kw_only=True):
    """A figure that a scenario yields."""

    name: str
    """What is shown, with its unit."""
    higher_is_better: bool = False
    target: float | None = None
    """How much better than llama-server ours should be at least: 1 is as good."""
    limit: float | None = None
    """What our own figure should not exceed."""


class Series(Struct, frozen=True):
    """The values of one metric: per side, one per round."""

    metric: Metric
    values: dict[str, list[float]]

    def spread(self, side: str) -> Spread | None:
        """Return the spread of a *side*'s values; None if it has none."""
        values = self.values.get(side)
        return spread(values) if values else None

    def best_of_ours(self) -> str | None:
        """Return the side of ours whose median is the best."""
        return self._best([side for side in self.values if side in _OURS])

    def best_peer(self) -> str | None:
        """Return the side, other than ours, whose median is the best."""
        return self._best([side for side in self.values if side not in _OURS])

    def _best(self, sides: list[str]) -> str | None:
        sign = -1 if self.metric.higher_is_better else 1
        return min(
            (side for side in sides if self.values[side]),
            key=lambda side: sign * statistics.median(self.values[side]),
            default=None,
        )

    def advantage(self) -> Spread | None:
        """Return by how much our best side is better than the best peer, as rounds pair them."""
        ours, peer = self.best_of_ours(), self.best_peer()
        if ours is None or peer is None or min(*self.values[ours], *self.values[peer]) <= 0:
            return None
        pairs = self.values[ours], self.values[peer]
        return spread(advantages(*pairs, higher_is_better=self.metric.higher_is_better))

    def met(self) -> bool | None:
        """Tell whether target and limit are met; None where there is nothing to compare."""
        metric, ours, advantage = self.metric, self.spread(OURS), self.advantage()
        verdicts = []
        if metric.target is not None and advantage is not None:
            verdicts.append(advantage.median >= metric.target)
        if metric.limit is not None and ours is not None:
            verdicts.append(ours.median <= metric.limit)
        return all(verdicts) if verdicts else None


class Outcome(Struct, frozen=True, kw_only=True):
    """A scenario that was run."""

    scenario: str
    title: str
    rounds: int
    series: list[Series]
    notes: list[str] = []


def load_outcomes(path: Path) -> list[Outcome]:
    """Return what was kept in *path*, if anything was."""
    return msgspec.json.decode(path.read_bytes(), type=list[Outcome]) if path.exists() else []


def keep_outcomes(path: Path, outcomes: list[Outcome]) -> list[Outcome]:
    """Add *outcomes* to those in *path*, in place of older ones; return all."""
    kept = {each.scenario: each for each in [*load_outcomes(path), *outcomes]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(kept.values()))))
    return list(kept.values())
