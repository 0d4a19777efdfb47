"""What holds for an instance that several models share."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router_mw.scheduler.terms import LADDER, OFF, Companion, Terms, shared
from llm_router_mw.types import InstanceKey, LoadOptions

B = Companion("b", InstanceKey("b", LoadOptions()))
C = Companion("c", InstanceKey("c", LoadOptions()))

any_terms = st.builds(
    Terms,
    priority=st.integers(-3, 3),
    pinned=st.booleans(),
    sleep_idle_seconds=st.sampled_from([OFF, 0.0, 5.0, 60.0]),
    sleep_level=st.sampled_from(["context", "full"]),
    unload_idle_seconds=st.sampled_from([OFF, 0.0, 5.0, 60.0]),
    evict_to=st.sampled_from(LADDER),
    exclusive_groups=st.lists(st.sampled_from("gh"), unique=True).map(tuple),
    companions=st.lists(st.sampled_from([B, C]), unique=True).map(tuple),
)


def test_nothing_said_is_as_by_default() -> None:
    assert shared(()) == Terms()


def test_one_alone_has_its_way() -> None:
    terms = Terms(pinned=True, evict_to="context")
    assert shared([terms]) is terms


def test_it_is_pinned_if_any_is() -> None:
    assert shared([Terms(), Terms(pinned=True)]).pinned


@pytest.mark.parametrize(("first", "second", "both"), [(5, 20, 20), (5, OFF, OFF), (0, 3, 3)])
def test_the_longest_idle_limit_counts(first: float, second: float, both: float) -> None:
    terms = shared([Terms(sleep_idle_seconds=first), Terms(sleep_idle_seconds=second)])
    assert terms.sleep_idle_seconds == both
    terms = shared([Terms(unload_idle_seconds=second), Terms(unload_idle_seconds=first)])
    assert terms.unload_idle_seconds == both


def test_the_mildest_step_and_sleep_count() -> None:
    terms = shared([Terms(evict_to="stop"), Terms(evict_to="full", sleep_level="context")])
    assert terms.evict_to == "full"
    assert terms.sleep_level == "context"


def test_groups_and_companions_add_up() -> None:
    terms = shared(
        [
            Terms(exclusive_groups=("g",), companions=(B,)),
            Terms(exclusive_groups=("h", "g"), companions=(C, B)),
        ]
    )
    assert terms.exclusive_groups == ("g", "h")
    assert terms.companions == (B, C)


@given(st.lists(any_terms, min_size=1, max_size=3))
def test_the_order_of_the_models_does_not_matter(each: list[Terms]) -> None:
    def without_order(terms: Terms) -> object:
        return (
            terms.priority,
            terms.pinned,
            terms.sleep_idle_seconds,
            terms.sleep_level,
            terms.unload_idle_seconds,
            terms.evict_to,
            set(terms.exclusive_groups),
            set(terms.companions),
        )

    expected = without_order(shared(each))
    for order in itertools.permutations(each):
        assert without_order(shared(order)) == expected


@given(any_terms)
def test_twice_the_same_is_the_same(terms: Terms) -> None:
    assert shared([terms, terms]) == terms
