"""Medians, percentiles and ratios."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.figures import Spread, advantages, percentile, spread
from benchmarks.outcome import Metric, Outcome, Series, keep_outcomes, load_outcomes

SPEED = Metric(name="tokens/s", higher_is_better=True, target=1.05)
DELAY = Metric(name="first token, ms", target=1.0, limit=3.0)


def test_a_spread_is_the_middle_and_the_ends() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 5), (90, 9), (99, 10), (100, 10)])
def test_percentiles_are_values_that_were_measured(percent: float, expected: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == expected


def test_an_advantage_is_above_one_when_ours_is_better() -> None:
    assert advantages([20.0], [10.0], higher_is_better=True) == [2.0]
    assert advantages([20.0], [10.0], higher_is_better=False) == [0.5]


@pytest.mark.parametrize(("metric", "best"), [(SPEED, "split"), (DELAY, "unified")])
def test_ours_is_compared_with_the_better_layout(metric: Metric, best: str) -> None:
    series = Series(metric, {"ours": [4.0, 4.0], "unified": [2.0, 2.0], "split": [8.0, 3.0]})

    assert series.best_peer() == best


def test_the_better_layout_of_ours_is_compared() -> None:
    values = {"ours": [4.0], "ours-split": [6.0], "unified": [2.0], "split": [3.0]}

    assert Series(SPEED, values).advantage() == Spread(2.0, 2.0, 2.0)
    assert Series(Metric(name="gap"), values).advantage() == Spread(0.5, 0.5, 0.5)


def test_rounds_are_compared_in_pairs() -> None:
    series = Series(SPEED, {"ours": [2.0, 20.0, 300.0], "split": [1.0, 10.0, 100.0]})

    assert series.advantage() == Spread(2.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("metric", "ours", "theirs", "met"),
    [
        (SPEED, 106.0, 100.0, True),
        (SPEED, 104.0, 100.0, False),
        (DELAY, 2.0, 3.0, True),
        (DELAY, 4.0, 5.0, False),  # better than theirs, but above the limit
        (DELAY, 2.0, 1.0, False),
        (Metric(name="gap"), 1.0, 2.0, None),
    ],
)
def test_a_target_is_met_or_missed(
    metric: Metric, ours: float, theirs: float, met: bool | None
) -> None:
    assert Series(metric, {"ours": [ours], "split": [theirs]}).met() is met


def test_without_a_peer_only_limits_can_be_judged() -> None:
    assert Series(SPEED, {"ours": [1.0]}).met() is None
    assert Series(SPEED, {"ours": [1.0]}).advantage() is None
    assert Series(DELAY, {"ours": [4.0]}).met() is False


def test_nothing_is_so_many_times_better_than_nothing() -> None:
    assert Series(SPEED, {"ours": [1.0], "split": [0.0]}).advantage() is None
    assert Series(SPEED, {"ours": [0.0], "split": [1.0]}).advantage() is None


def test_kept_results_take_the_place_of_older_ones(tmp_path: Path) -> None:
    def outcome(scenario: str, value: float) -> Outcome:
        series = [Series(SPEED, {"ours": [value]})]
        return Outcome(scenario=scenario, title=scenario, rounds=1, series=series)

    path = tmp_path / "new" / "results.json"
    assert load_outcomes(path) == []
    keep_outcomes(path, [outcome("a", 1.0), outcome("b", 2.0)])
    keep_outcomes(path, [outcome("a", 3.0)])

    assert load_outcomes(path) == [outcome("a", 3.0), outcome("b", 2.0)]
