"""Objects and arrays of a schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_router_mw.engine.schema.error import SchemaError
from llm_router_mw.engine.schema.keys import QUOTE, key, other_key
from llm_router_mw.engine.schema.merge import Schema
from llm_router_mw.engine.schema.rules import RuleBook
from llm_router_mw.engine.schema.scalars import count

_Convert = Callable[[Any, str], str]
"""Returns the rule for a schema in a place."""
_MAX_PROPERTIES = 1000
_MAX_OPTIONAL = 300


def json_object(schema: Schema, book: RuleBook, convert: _Convert, place: str) -> str:
    """Return the rule for an object by *schema*: its properties in their order, then others.

    Others come only if ``additionalProperties`` allows them by name, or no property is named.

    Raises:
        SchemaError: its conditions are wrong, or cannot be promised.
    """
    for name in ("minProperties", "maxProperties"):
        if name in schema:
            raise SchemaError(place, f"the keyword {name!r} is not supported")
    properties, required = _members(schema, place)
    others = schema.get("additionalProperties", not properties)
    if not properties and others is True:
        return book.primitive("object")
    space = book.primitive("space")
    pairs = [
        (
            book.add(f'{key(name)} {space} ":" {space} {convert(value, _under(place, name))}'),
            name in required,
        )
        for name, value in properties.items()
    ]
    more = ""
    if others is not False:
        value = convert(others, f"{place}/additionalProperties")
        more = book.add(f'{other_key(properties, book)} {space} ":" {space} {value}')
    return book.add(f'"{{" {space} {_sequence(pairs, more, book, place)} "}}" {space}')


def array(schema: Schema, book: RuleBook, convert: _Convert, place: str) -> str:
    """Return the rule for an array by *schema*.

    Raises:
        SchemaError: its conditions are wrong, or cannot be promised.
    """
    if schema.get("uniqueItems"):
        raise SchemaError(place, "the keyword 'uniqueItems' is not supported")
    low, high = count(schema, "minItems", 0, place) or 0, count(schema, "maxItems", None, place)
    first, rest = _items(schema, place, low)
    space = book.primitive("space")
    first = first if high is None else first[:high]
    parts = [convert(item, f"{place}/prefixItems/{index}") for index, item in enumerate(first)]
    comma = f'"," {space}'
    if rest is False or high == len(parts):
        if low > len(parts):
            raise SchemaError(place, f"there can be {len(parts)} items only, fewer than minItems")
        return book.add(f'"[" {space} {f" {comma} ".join(parts)} "]" {space}')
    item = convert(rest, f"{place}/items")
    left = None if high is None else high - len(parts)
    if parts:
        another = book.add(f"{comma} {item}")
        more = book.repeat(another, max(0, low - len(parts)), left, place)
        return book.add(f'"[" {space} {f" {comma} ".join(parts)} {more} "]" {space}')
    if low == 0 and left is None and item == "value":
        return book.primitive("array")
    another = book.add(f"{comma} {item}")
    more = book.repeat(another, max(0, low - 1), None if left is None else left - 1, place)
    inside = f"{item} {more}" if low else f"( {item} {more} )?"
    return book.add(f'"[" {space} {inside} "]" {space}')


def _members(schema: Schema, place: str) -> tuple[dict[str, Any], set[str]]:
    """Return the schemas of all properties that are named anywhere, and the names required."""
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict):
        raise SchemaError(place, "properties must be an object")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise SchemaError(place, "required must be a list of strings")
    others = schema.get("additionalProperties", True)
    unnamed = [name for name in dict.fromkeys(required) if name not in properties]
    if unnamed and others is False:
        raise SchemaError(place, f"the required {unnamed[0]!r} is not among the properties")
    found = {name: value for name, value in properties.items() if value is not False}
    found |= dict.fromkeys(unnamed, others)
    if len(found) > _MAX_PROPERTIES:
        raise SchemaError(place, f"an object may have at most {_MAX_PROPERTIES} properties")
    if not found.keys() >= set(required):
        raise SchemaError(place, "a required property must not exist")
    return found, set(required)


def _sequence(pairs: list[tuple[str, bool]], more: str, book: RuleBook, place: str) -> str:
    """Return the expression for *pairs* with commas between; those not required may be missing.

    Goes from behind, with what may follow a comma and a quote. What all choices begin with comes
    before them, because llama.cpp tries the whole vocabulary with each choice.
    """
    comma = f'"," {book.primitive("space")} {QUOTE}'
    choice, after = (f"{more} ( {comma} {more} )*", f"( {comma} {more} )*") if more else ("", "")
    is_needed, n_optional = False, 0
    for pair, required in reversed(pairs):
        n_optional = 0 if required else n_optional + 1
        if n_optional > _MAX_OPTIONAL:
            raise SchemaError(
                place,
                f"more than {_MAX_OPTIONAL} properties in a row that are not required cannot be "
                "followed",
            )
        mine = f"{pair} {after}"
        choice = book.add(mine if required or not choice else f"{mine} | {choice}")
        is_needed = is_needed or required
        after = f"{comma} {choice}" if is_needed else f"( {comma} {choice} )?"
    if not choice:
        return ""
    return f"{QUOTE} {choice}" if is_needed else f"( {QUOTE} {choice} )?"


def _items(schema: Schema, place: str, low: int) -> tuple[list[Any], Any]:
    """Return the schemas of the first items, and of all that follow; there are *low* at least."""
    items = schema.get("items", True)
    first = schema.get("prefixItems", [])
    if isinstance(items, list):
        # Until draft 2019-09 the first items were listed here.
        first, items = items, schema.get("additionalItems", True)
    if not isinstance(first, list):
        raise SchemaError(place, "prefixItems must be a list")
    if first and items is True and low <= len(first):
        # More is allowed, but nobody who lists items waits for others.
        items = False
    return first, items


def _under(place: str, name: str) -> str:
    return f"{place}/properties/{name.replace('~', '~0').replace('/', '~1')}"
