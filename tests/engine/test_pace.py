"""Sizing the chunks of prompts."""

from __future__ import annotations

import pytest

from llm_router_mw.engine import pace
from llm_router_mw.engine.pace import Pace


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(pace, "perf_counter", lambda: self.now)

    def step(self, measured: Pace, n_tokens: int, seconds: float) -> None:
        with measured.timed([(None, n_tokens)]):
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_alone_a_prompt_may_fill_the_batch(clock: Clock) -> None:
    measured = Pace(512)
    clock.step(measured, 512, 5.0)
    assert measured.prompt_budget(0) == 512


@pytest.mark.parametrize("n_decoding", [0, 3])
def test_as_long_as_nothing_is_known_a_part_of_the_batch_is_taken(n_decoding: int) -> None:
    assert Pace(512).prompt_budget(n_decoding) == 256


def test_as_long_as_nothing_is_known_small_batches_are_filled() -> None:
    assert Pace(64).prompt_budget(3) == 61


def test_even_alone_a_step_lasts_ten_seconds_at_most(clock: Clock) -> None:
    measured = Pace(512)
    clock.step(measured, 100, 10.0)
    assert 100 <= measured.prompt_budget(0) < 100 + 16


def test_answers_that_stand_still_keep_steps_short_too(clock: Clock) -> None:
    measured = Pace(512)
    clock.step(measured, 500, 5.0)
    assert measured.prompt_budget(0, n_paused=4) == 32


def test_beside_others_a_step_lasts_about_a_tenth_of_a_second(clock: Clock) -> None:
    measured = Pace(512)
    clock.step(measured, 500, 0.5)
    assert 100 <= measured.prompt_budget(4) < 100 + 16


@pytest.mark.parametrize("n_decoding", [1, 4, 8, 15, 16, 40])
@pytest.mark.parametrize(("depth", "rows"), [(0, 16), (511, 16), (512, 64), (9000, 64)])
def test_rows_come_in_the_numbers_that_are_computed_at_once(
    clock: Clock, n_decoding: int, depth: int, rows: int
) -> None:
    measured = Pace(512)
    clock.step(measured, 500, 5.0)
    budget = measured.prompt_budget(n_decoding, depth)
    assert (n_decoding + budget) % rows == 0
    assert 24 <= budget < 24 + rows


@pytest.mark.parametrize(("depth", "rows"), [(0, 32), (512, 64)])
def test_where_streams_are_separate_those_left_over_count(
    clock: Clock, depth: int, rows: int
) -> None:
    measured = Pace(512, unified=False)
    clock.step(measured, 500, 5.0)
    # The first row of the prompt is computed with those of the others.
    assert measured.prompt_budget(7, depth) == rows + 1


def test_a_fast_machine_fills_the_batch_all_the_same(clock: Clock) -> None:
    measured = Pace(512)
    clock.step(measured, 500, 0.001)
    assert measured.prompt_budget(4) == 508


def test_a_slow_machine_still_gets_on(clock: Clock) -> None:
    measured = Pace(512)
    clock.step(measured, 500, 100.0)
    assert measured.prompt_budget(4) == 28


def test_steps_that_only_decode_are_not_measured(clock: Clock) -> None:
    measured = Pace(512)
    clock.step(measured, 500, 0.001)
    clock.step(measured, 4, 100.0)
    assert measured.prompt_budget(4) == 508


def test_one_odd_measurement_does_not_decide(clock: Clock) -> None:
    measured = Pace(512)
    clock.step(measured, 500, 0.5)
    clock.step(measured, 500, 1.0)
    assert 50 < measured.prompt_budget(4) < 100


def test_the_smallest_steps_with_a_prompt_are_measured_too(clock: Clock) -> None:
    measured = Pace(512)
    with measured.timed([*[(None, 1)] * 8, (None, 24)]):
        clock.now += 0.032
    assert 100 <= measured.prompt_budget(8) < 116
