"""Numbers between bounds: for integers exactly those, for others none outside."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_router_mw.engine.schema.error import SchemaError
from llm_router_mw.engine.schema.numbers import Bounds, integer_between, number_between

_WHOLE = st.none() | st.integers(-1300, 1300).map(Decimal)
_DECIMAL = st.none() | st.decimals(-30, 30, places=2)


def as_regex(expression: str) -> re.Pattern[str]:
    """Return the regular expression that *expression*, which refers to no rules, stands for."""
    found = re.findall(r'"([^"]*)"|([^\s"]+)', expression)
    return re.compile("".join(re.escape(text) if text else other for text, other in found))


def within(value: Decimal, bounds: Bounds) -> bool:
    low, high = bounds.low, bounds.high
    above = low is None or value > low or (value == low and not bounds.above_low)
    return above and (high is None or value < high or (value == high and not bounds.below_high))


@given(low=_WHOLE, high=_WHOLE, above=st.booleans(), below=st.booleans())
def test_all_integers_within_the_bounds_and_no_others(
    low: Decimal | None, high: Decimal | None, above: bool, below: bool
) -> None:
    bounds = Bounds(low, high, above, below)
    expected = {str(number) for number in range(-1400, 1400) if within(Decimal(number), bounds)}
    if not expected:
        with pytest.raises(SchemaError):
            integer_between(bounds, "#")
        return
    pattern = as_regex(integer_between(bounds, "#"))
    assert {str(n) for n in range(-1400, 1400) if pattern.fullmatch(str(n))} == expected
    assert not pattern.fullmatch("007")


@given(low=_DECIMAL, high=_DECIMAL, above=st.booleans(), below=st.booleans(), data=st.data())
def test_no_number_outside_the_bounds(
    low: Decimal | None, high: Decimal | None, above: bool, below: bool, data: st.DataObject
) -> None:
    bounds = Bounds(low, high, above, below)
    try:
        expression = number_between(bounds, "#")
    except SchemaError:
        assert low is not None
        assert high is not None
        assert low >= high
        return
    text = data.draw(st.from_regex(as_regex(expression), fullmatch=True))
    assert within(Decimal(text), bounds)


@pytest.mark.parametrize(
    ("bounds", "texts"),
    [
        (Bounds(Decimal(0), Decimal(1)), ["0", "0.5", "0.999", "1", "1.0"]),
        (Bounds(Decimal("0.5"), None), ["0.500", "0.75" + "0", "1", "17.25"]),
        (Bounds(None, Decimal("-2.5")), ["-2.500", "-3", "-100.125"]),
        (Bounds(Decimal(-1), Decimal(1), True, True), ["-0.5", "0", "0.25"]),
        (Bounds(Decimal("1.25"), Decimal("1.75")), ["1.2500", "1.5000", "1.7500"]),
    ],
)
def test_ordinary_numbers_within_the_bounds_are_there(bounds: Bounds, texts: list[str]) -> None:
    pattern = as_regex(number_between(bounds, "#"))
    assert [text for text in texts if not pattern.fullmatch(text)] == []


@pytest.mark.parametrize("bound", [Decimal(10**15), Decimal("0.1") ** 20, Decimal("inf")])
def test_a_bound_that_floats_cannot_hold_is_refused(bound: Decimal) -> None:
    with pytest.raises(SchemaError, match="more than 15 digits"):
        number_between(Bounds(bound, None), "#")


def test_the_largest_integers() -> None:
    pattern = as_regex(integer_between(Bounds(Decimal(10**15 - 1), None), "#"))
    assert pattern.fullmatch("9" * 15)
    assert not pattern.fullmatch("9" * 14)
