"""Strings and numbers of a schema."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from llm_router_mw.engine.schema.error import SchemaError
from llm_router_mw.engine.schema.merge import Schema
from llm_router_mw.engine.schema.numbers import Bounds, integer_between, number_between
from llm_router_mw.engine.schema.patterns import Node, pattern
from llm_router_mw.engine.schema.rules import RuleBook

_FORMATS = {"date": ("date",), "time": ("time",), "uuid": ("uuid",), "date-time": ("date", "time")}


def string(schema: Schema, book: RuleBook, place: str) -> str:
    """Return the rule for a string by *schema*. Formats without a rule here are no condition.

    Raises:
        SchemaError: its conditions are wrong, or cannot be promised together.
    """
    low = count(schema, "minLength", 0, place) or 0
    high = count(schema, "maxLength", None, place)
    space = book.primitive("space")
    if "pattern" in schema:
        inside = pattern(_text(schema["pattern"], place), book, place)
        _check_length(inside, low, high, place)
        return book.add(rf'"\"" {inside.text} "\"" {space}')
    kind = schema.get("format")
    if isinstance(kind, str) and kind in _FORMATS:
        parts = ' "T" '.join(book.primitive(part) for part in _FORMATS[kind])
        return book.add(rf'"\"" {parts} "\"" {space}')
    if low == 0 and high is None:
        return book.primitive("string")
    text = book.repeat(book.primitive("char"), low, high, place)
    return book.add(rf'"\"" {text} "\"" {space}')


def number(kind: str, schema: Schema, book: RuleBook, place: str) -> str:
    """Return the rule for an integer or a number by *schema*.

    Raises:
        SchemaError: its conditions are wrong, or cannot be promised.
    """
    if schema.get("multipleOf", 1) != 1 or (kind == "number" and "multipleOf" in schema):
        raise SchemaError(place, "the keyword 'multipleOf' is not supported")
    bounds = _bounds(schema, place)
    if bounds == Bounds():
        return book.primitive(kind)
    between = integer_between if kind == "integer" else number_between
    return book.add(f"{between(bounds, place)} {book.primitive('space')}")


def count(schema: Schema, name: str, default: int | None, place: str) -> int | None:
    """Return the number *name* of *schema*, which must not be negative.

    Raises:
        SchemaError: it is none.
    """
    value = schema.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:
        raise SchemaError(place, f"{name} must be an integer")
    if value < 0:
        raise SchemaError(place, f"{name} must not be negative")
    return int(value)


def _check_length(inside: Node, low: int, high: int | None, place: str) -> None:
    too_long = high is not None and (inside.longest is None or inside.longest > high)
    if inside.shortest < low or too_long:
        raise SchemaError(
            place, "'pattern' also allows other lengths than minLength and maxLength; change it"
        )


def _bounds(schema: Schema, place: str) -> Bounds:
    low, above = _end(schema, "minimum", "exclusiveMinimum", max, place)
    high, below = _end(schema, "maximum", "exclusiveMaximum", min, place)
    return Bounds(low, high, above, below)


def _end(
    schema: Schema, name: str, strict_name: str, narrower: Callable[..., Decimal], place: str
) -> tuple[Decimal | None, bool]:
    """Return the bound on one side, and whether it is itself out of bounds."""
    plain, strict = _decimal(schema, name, place), schema.get(strict_name)
    # Draft 4 says whether the other bound is meant to be out.
    if isinstance(strict, bool):
        return plain, strict and plain is not None
    strict = _decimal(schema, strict_name, place)
    if plain is None or strict is None:
        return (plain, False) if strict is None else (strict, True)
    bound = narrower(plain, strict)
    return bound, bound == strict


def _decimal(schema: Schema, name: str, place: str) -> Decimal | None:
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SchemaError(place, f"{name} must be a number")
    return Decimal(repr(value))


def _text(value: Any, place: str) -> str:
    if isinstance(value, str):
        return value
    raise SchemaError(place, "pattern must be a string")
