"""Saving pays where restoring is faster than computing again."""

from __future__ import annotations

import pytest

from llm_router_mw.kv_store.speed import Speed

MIB = 2**20


@pytest.mark.parametrize(
    ("compute_seconds", "hurried", "pays"),
    [
        (None, True, True),
        (1.0, False, False),
        (1.1, False, True),
        (3.0, True, False),
        (3.1, True, True),
    ],
)
def test_the_save_counts_only_where_somebody_waits_for_it(
    compute_seconds: float | None, hurried: bool, pays: bool
) -> None:
    speed = Speed(save_mib_per_second=50.0, restore_mib_per_second=100.0)
    assert speed.pays(100 * MIB, compute_seconds, hurried=hurried) is pays


def test_it_learns_from_what_was_seen() -> None:
    speed = Speed(save_mib_per_second=100.0, restore_mib_per_second=100.0)
    for _ in range(20):
        speed.saved(100 * MIB, 0.5)
        speed.restored(100 * MIB, 0.1)
    assert speed.save_seconds(100 * MIB) == pytest.approx(0.5, rel=0.01)
    assert speed.pays(100 * MIB, 0.11, hurried=False)
    assert not speed.pays(100 * MIB, 0.09, hurried=False)


@pytest.mark.parametrize(("n_bytes", "seconds"), [(100, 1.0), (100 * MIB, 0.0)])
def test_what_tells_nothing_of_the_speed_is_not_learned_from(n_bytes: int, seconds: float) -> None:
    speed = Speed(save_mib_per_second=100.0, restore_mib_per_second=100.0)
    speed.saved(n_bytes, seconds)
    assert speed.save_seconds(100 * MIB) == pytest.approx(1.0)
