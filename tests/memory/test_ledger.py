"""Charges against capacities, for memory and for everything else that there is only so much of."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from llm_router_mw.memory.ledger import Ledger
from llm_router_mw.types import InstanceKey, LoadOptions, PoolReading

A = InstanceKey("a", LoadOptions())
B = InstanceKey("b", LoadOptions())


def reading(total: int, *, free: int | None = None, **fields: int | None) -> PoolReading:
    return PoolReading(
        total_bytes=total,
        free_bytes=total if free is None else free,
        **fields,  # type: ignore[arg-type]
    )


def test_what_is_never_limited_is_without_end() -> None:
    ledger = Ledger()
    ledger.charge(A, {"slots": 1})
    assert ledger.room("slots") == sys.maxsize
    assert ledger.capacity("slots") == sys.maxsize
    assert ledger.charged("slots") == 1
    assert ledger.rooms() == {}
    assert not ledger.is_overdrawn


def test_room_is_capacity_less_charges() -> None:
    ledger = Ledger()
    ledger.limit("slots", 3)
    ledger.charge(A, {"slots": 1})
    ledger.charge(B, {"slots": 1})
    assert ledger.room("slots") == 1
    assert ledger.rooms() == {"slots": 1}


def test_a_charge_replaces_the_one_before() -> None:
    ledger = Ledger()
    ledger.limit("gpu", 100)
    ledger.charge(A, {"gpu": 60, "slots": 1})
    ledger.charge(A, {"gpu": 10})
    assert ledger.charge_of(A) == {"gpu": 10}
    assert ledger.room("gpu") == 90
    assert ledger.charged("slots") == 0


def test_who_has_gone_is_charged_with_nothing() -> None:
    ledger = Ledger()
    ledger.charge(A, {"gpu": 60})
    ledger.charge(A, {})
    assert ledger.charge_of(A) == {}
    assert ledger.charged("gpu") == 0


def test_what_others_hold_and_the_margin_is_not_ours() -> None:
    ledger = Ledger()
    ledger.observe({"gpu": reading(100, free=60, ours_bytes=30, margin_bytes=5)})
    assert ledger.capacity("gpu") == 85
    seen = ledger.reading("gpu")
    assert seen is not None
    assert seen.others_bytes == 10
    assert ledger.reading("host") is None


def test_a_pool_of_which_nothing_is_known_limits_nothing() -> None:
    ledger = Ledger()
    ledger.observe({"gpu": reading(100)})
    ledger.observe({"gpu": reading(0)})
    assert ledger.room("gpu") == sys.maxsize


def test_but_a_limit_that_was_said_holds_even_then() -> None:
    ledger = Ledger()
    ledger.observe({"gpu": reading(0, limit_bytes=50)})
    assert ledger.capacity("gpu") == 50
    ledger.observe({"gpu": reading(100, limit_bytes=50)})
    assert ledger.capacity("gpu") == 50


def test_where_others_grow_it_is_overdrawn() -> None:
    ledger = Ledger()
    ledger.observe({"gpu": reading(100)})
    ledger.charge(A, {"gpu": 60})
    assert not ledger.is_overdrawn
    ledger.observe({"gpu": reading(100, free=30)})
    assert ledger.room("gpu") == -30
    assert ledger.is_overdrawn


def test_pools_that_were_not_looked_at_stay_as_they_were() -> None:
    ledger = Ledger()
    ledger.observe({"gpu": reading(100), "host": reading(50)})
    ledger.observe({"gpu": reading(80)})
    assert ledger.capacity("host") == 50


@given(
    st.lists(
        st.tuples(
            st.sampled_from([A, B]),
            st.dictionaries(st.sampled_from(["gpu", "host", "slots"]), st.integers(0, 50)),
        )
    )
)
def test_the_sum_is_always_that_of_the_charges(
    steps: list[tuple[InstanceKey, dict[str, int]]],
) -> None:
    ledger = Ledger()
    ledger.limit("gpu", 70)
    for instance, amounts in steps:
        ledger.charge(instance, amounts)
        for resource in ("gpu", "host", "slots"):
            total = sum(ledger.charge_of(each).get(resource, 0) for each in (A, B))
            assert ledger.charged(resource) == total
        assert ledger.is_overdrawn == (ledger.charged("gpu") > 70)
