"""The bound is below what anybody can do, and as high as can be seen."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router_mw.simulator.bound import Room, belady_loads, lower_bound


def fewest_in_order(asked: list[int], room: Room) -> int:
    """Return the fewest loads that serve *asked* one by one, by trying all ways."""
    least: dict[frozenset[int], int] = {frozenset(): 0}
    for model in asked:
        after: dict[frozenset[int], int] = {}
        for resident, loads in least.items():
            if model in resident:
                after[resident] = min(loads, after.get(resident, loads))
                continue
            for kept in range(len(resident) + 1):
                for stay in itertools.combinations(sorted(resident), kept):
                    now = frozenset({*stay, model})
                    size = sum(room.sizes[each] for each in now)
                    if size <= room.capacity_bytes and len(now) <= room.slots:
                        after[now] = min(loads + 1, after.get(now, loads + 1))
        least = after
    return min(least.values())


@given(
    st.lists(st.integers(0, 3), max_size=10),
    st.lists(st.integers(1, 4), min_size=4, max_size=4),
    st.integers(4, 9),
    st.integers(0, 3),
)
def test_nobody_needs_less_than_the_bound(
    asked: list[int], sizes: list[int], capacity: int, slots: int
) -> None:
    room = Room(sizes, capacity, slots)
    times = [float(place) for place in range(len(asked))]

    # Served at once and in order: nobody waits.
    assert lower_bound(times, asked, room, 0.0) <= fewest_in_order(asked, room)


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 4))
def test_beladys_rule_is_the_best_in_order_if_all_are_of_one_size(
    asked: list[int], slots: int
) -> None:
    room = Room([1] * 5, 5, slots)

    assert belady_loads(asked, room) == fewest_in_order(asked, room)


def test_each_model_must_be_loaded_once() -> None:
    assert lower_bound([0.0, 1.0, 2.0], [0, 1, 2], Room([1, 1, 1], 3), 1e9) == 3


def test_two_that_do_not_fit_together_must_be_swapped_if_nobody_waits() -> None:
    room = Room([1, 1], 1)

    assert lower_bound([0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1], room, 0.0) == 3
    assert belady_loads([0, 1, 0, 1], room) == 4


@pytest.mark.parametrize(("patience", "expected"), [(0.5, 31), (9.5, 7), (1e9, 2)])
def test_the_more_patient_they_are_the_fewer_loads_are_sure(patience: float, expected: int) -> None:
    times = [float(place) for place in range(61)]
    asked = [place % 2 for place in range(61)]

    assert lower_bound(times, asked, Room([1, 1], 1), patience) == expected


def test_the_number_of_models_at_once_counts_too() -> None:
    times, asked = [0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1]

    assert lower_bound(times, asked, Room([1, 1], 9, models_max=1), 0.0) == 3
    assert lower_bound(times, asked, Room([1, 1], 9), 0.0) == 2


def test_what_was_refused_needs_no_load() -> None:
    assert lower_bound([0.0, 1.0], [-1, 0], Room([9, 1], 3), 0.0) == 1
    assert belady_loads([-1, 0], Room([9, 1], 3)) == 1
