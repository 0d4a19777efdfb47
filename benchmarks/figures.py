"""Statistics of a few measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from msgspec import Struct


class Spread(Struct, frozen=True):
    """The middle and the ends of some measurements."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of *values*, of which there must be one at least."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of *values* that *percent* of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def advantages(
    ours: Sequence[float], theirs: Sequence[float], *, higher_is_better: bool
) -> list[float]:
    """Return by how much ours are better, round by round: above 1 they are, below they are not."""
    pairs = zip(ours, theirs, strict=True)
    return [mine / other if higher_is_better else other / mine for mine, other in pairs]
