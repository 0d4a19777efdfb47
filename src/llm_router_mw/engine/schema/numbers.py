"""Expressions for numbers between bounds."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from msgspec import Struct

from llm_router_mw.engine.schema.error import SchemaError

_MAX_DIGITS = 15
"""All integers of so many digits are exact in the floats that most parsers make of them."""
_ANY_FRACTION = '( "." [0-9]{1,15} )?'


class Bounds(Struct, frozen=True):
    """From where to where a number goes; None is without end."""

    low: Decimal | None = None
    high: Decimal | None = None
    above_low: bool = False
    """Whether *low* itself is out."""
    below_high: bool = False

    def negated(self) -> Bounds:
        """Return the bounds of the number with its sign turned."""
        low = None if self.high is None else -self.high
        high = None if self.low is None else -self.low
        return Bounds(low, high, self.below_high, self.above_low)

    def from_zero(self) -> Bounds | None:
        """Return the part of it that is not below zero; None if there is none."""
        if self.high is not None and (self.high < 0 or (self.high == 0 and self.below_high)):
            return None
        if self.low is None or self.low < 0:
            return Bounds(Decimal(0), self.high, False, self.below_high)
        return self


_Unsigned = Callable[[Bounds], list[str]]


def integer_between(bounds: Bounds, place: str) -> str:
    """Return the expression for the integers within *bounds*.

    Raises:
        SchemaError: there are none, or a bound has too many digits.
    """
    return _signed(bounds, place, _integers)


def number_between(bounds: Bounds, place: str) -> str:
    """Return the expression for numbers within *bounds*: not all of them, where one ends oddly.

    Raises:
        SchemaError: there are none, or a bound has too many digits.
    """
    return _signed(bounds, place, _numbers)


def _signed(bounds: Bounds, place: str, unsigned: _Unsigned) -> str:
    for bound in (bounds.low, bounds.high):
        if bound is not None and not _is_short(bound):
            raise SchemaError(place, f"the bound {bound} has more than {_MAX_DIGITS} digits")
    if bounds.low is not None and bounds.high is not None and bounds.low > bounds.high:
        raise SchemaError(place, f"the lower bound, {bounds.low}, is above the upper one")
    choices = []
    positive, negative = bounds.from_zero(), bounds.negated().from_zero()
    if positive is not None:
        choices += unsigned(positive)
    if negative is not None and (bounds.low is None or bounds.low < 0):
        choices += [f'"-" {choice}' for choice in unsigned(negative)]
    if not choices:
        raise SchemaError(place, "there is no number between these bounds")
    return f"( {' | '.join(choices)} )"


def _is_short(bound: Decimal) -> bool:
    exponent = bound.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -_MAX_DIGITS and abs(bound) < 10**_MAX_DIGITS


def _integers(bounds: Bounds) -> list[str]:
    """Return the choices for integers within *bounds*, of which the lower one is at least 0."""
    low = bounds.low or Decimal(0)
    first = int(low) + int(low % 1 > 0 or bounds.above_low)
    if bounds.high is None:
        return _from(first)
    last = int(bounds.high) - int(bounds.high % 1 == 0 and bounds.below_high)
    return _between(first, last)


def _numbers(bounds: Bounds) -> list[str]:
    """Return the choices for numbers within *bounds*, of which the lower one is at least 0."""
    low, high = bounds.low or Decimal(0), bounds.high
    first, after_first = int(low), _fraction(low)
    if high is not None and int(high) == first:
        fraction = _fraction_between(after_first, _fraction(high), bounds)
        return [f'"{first}" {fraction}'] if fraction else []
    choices = [f'"{first}" {_fraction_from(after_first, bounds.above_low)}']
    if high is None:
        return choices + [f"{whole} {_ANY_FRACTION}" for whole in _from(first + 1)]
    last = int(high)
    choices += [f"{whole} {_ANY_FRACTION}" for whole in _between(first + 1, last - 1)]
    fraction = _fraction_to(_fraction(high), bounds.below_high)
    return choices + ([f'"{last}" {fraction}'] if fraction else [])


def _fraction(value: Decimal) -> str:
    """Return the digits behind the point, without zeros at the end."""
    return f"{value:f}".partition(".")[2].rstrip("0")


def _fraction_from(digits: str, strict: bool) -> str:
    if not digits and not strict:
        return _ANY_FRACTION
    places = len(digits) + 2
    first = int(digits.ljust(places, "0")) + strict
    return f'"." {_same_length(f"{first:0{places}}", "9" * places)}'


def _fraction_to(digits: str, strict: bool) -> str:
    if not digits:
        return "" if strict else '( ".0" )?'
    places = len(digits) + 2
    last = int(digits.ljust(places, "0")) - strict
    return f'( "." {_same_length("0" * places, f"{last:0{places}}")} )?'


def _fraction_between(low: str, high: str, bounds: Bounds) -> str:
    places = max(len(low), len(high)) + 2
    first = int(low.ljust(places, "0")) + bounds.above_low
    last = int(high.ljust(places, "0")) - bounds.below_high
    if first > last:
        return ""
    return f'"." {_same_length(f"{first:0{places}}", f"{last:0{places}}")}'


def _from(first: int) -> list[str]:
    size = len(str(first))
    choices = _between(first, 10**size - 1)
    if size < _MAX_DIGITS:
        choices.append(f"[1-9] [0-9]{{{size},{_MAX_DIGITS - 1}}}")
    return choices


def _between(first: int, last: int) -> list[str]:
    if first > last:
        return []
    shortest, longest = len(str(first)), len(str(last))
    if shortest == longest:
        return [_same_length(str(first), str(last))]
    choices = [
        _same_length(str(first), "9" * shortest),
        _same_length("1" + "0" * (longest - 1), str(last)),
    ]
    if longest - shortest > 1:
        choices.append(f"[1-9] [0-9]{{{shortest},{longest - 2}}}")
    return choices


def _same_length(first: str, last: str) -> str:
    """Return the expression for all strings of digits from *first* to *last*, which are as long."""
    size = len(first)
    if first == last:
        return f'"{first}"'
    if first == "0" * size and last == "9" * size:
        return f"[0-9]{{{size}}}"
    if first[0] == last[0]:
        return f'"{first[0]}" {_same_length(first[1:], last[1:])}'
    if size == 1:
        return f"[{first}-{last}]"
    rest = size - 1
    low, high = int(first[0]), int(last[0])
    choices = []
    if first[1:] != "0" * rest:
        choices.append(f'"{low}" {_same_length(first[1:], "9" * rest)}')
        low += 1
    if last[1:] != "9" * rest:
        choices.append(f'"{high}" {_same_length("0" * rest, last[1:])}')
        high -= 1
    if low <= high:
        choices.append(f"[{low}-{high}] [0-9]{{{rest}}}")
    return f"( {' | '.join(choices)} )"
