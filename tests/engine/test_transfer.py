"""How long a transfer takes is learnt from those before."""

from __future__ import annotations

from llm_router_mw.engine.transfer import SMALL_BYTES, Rate

MIB = 2**20


def test_before_anything_was_measured_it_is_assumed() -> None:
    assert 0.1 < Rate().seconds(1000 * MIB) < 10


def test_what_was_measured_counts_more_each_time() -> None:
    rate = Rate()
    for _ in range(10):
        rate.measured(100 * MIB, 1.0)
    assert 1.9 < rate.seconds(200 * MIB) < 2.1


def test_small_ones_tell_nothing() -> None:
    rate, other = Rate(), Rate()
    rate.measured(SMALL_BYTES - 1, 100.0)
    assert rate.seconds(MIB) == other.seconds(MIB)


def test_no_time_at_all_is_no_division_by_zero() -> None:
    rate = Rate()
    rate.measured(100 * MIB, 0.0)
    assert rate.seconds(100 * MIB) > 0
