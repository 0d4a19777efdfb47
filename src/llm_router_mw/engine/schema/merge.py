"""Two schemas that hold together, as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_router_mw.engine.schema.error import SchemaError

Schema = dict[str, Any]

ANNOTATIONS = frozenset(
    (
        "$anchor",
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "contentEncoding",
        "contentMediaType",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "externalDocs",
        "nullable",
        "readOnly",
        "title",
        "writeOnly",
        "xml",
    )
)
"""Keywords that allow and forbid nothing."""


def assertions(schema: Schema) -> Schema:
    """Return *schema* without its annotations and extensions (``x-…``)."""
    return {
        name: value
        for name, value in schema.items()
        if name not in ANNOTATIONS and not name.startswith("x-")
    }


def merged(first: Schema, second: Schema, place: str) -> Schema:
    """Return the schema that allows what both allow.

    Raises:
        SchemaError: they cannot be put together.
    """
    try:
        return _merged(assertions(first), assertions(second), place)
    # What the values of keywords are is checked only when they are turned into rules.
    except (AttributeError, TypeError) as error:
        raise SchemaError(place, f"a keyword has a value of the wrong kind: {error}") from error


def _merged(result: Schema, second: Schema, place: str) -> Schema:
    _check_additional(result, second, place)
    for name, value in second.items():
        if name not in result or result[name] == value:
            result[name] = value
        elif name in _COMBINED:
            result[name] = _COMBINED[name](result[name], value)
        else:
            raise SchemaError(place, f"two different values of {name!r} cannot hold together")
    return result


def _check_additional(first: Schema, second: Schema, place: str) -> None:
    """Refuse schemas of which one forbids the properties that only the other one names."""
    for closed, other in ((first, second), (second, first)):
        foreign = set(other.get("properties", ())) - set(closed.get("properties", ()))
        if closed.get("additionalProperties") is False and foreign:
            raise SchemaError(
                place,
                f"the properties {sorted(foreign)} of one part are forbidden by "
                "additionalProperties of another",
            )


def _types(first: Any, second: Any) -> Any:
    ours = set(first if isinstance(first, list) else [first])
    theirs = set(second if isinstance(second, list) else [second])
    both = ours & theirs
    # An integer is a number too.
    for narrow, wide in ((ours, theirs), (theirs, ours)):
        if "integer" in narrow and "number" in wide:
            both.add("integer")
    return sorted(both)


def _properties(first: Schema, second: Schema) -> Schema:
    shared = {name: {"allOf": [first[name], second[name]]} for name in first.keys() & second.keys()}
    return {**first, **second, **shared}


def _both(first: Any, second: Any) -> Schema:
    return {"allOf": [first, second]}


def _common(first: list[Any], second: list[Any]) -> list[Any]:
    return [value for value in first if value in second]


def _all_names(first: list[str], second: list[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


_COMBINED: dict[str, Callable[[Any, Any], Any]] = {
    "type": _types,
    "enum": _common,
    "properties": _properties,
    "required": _all_names,
    "items": _both,
    "additionalProperties": _both,
    "allOf": list.__add__,
    "minimum": max,
    "exclusiveMinimum": max,
    "minLength": max,
    "minItems": max,
    "maximum": min,
    "exclusiveMaximum": min,
    "maxLength": min,
    "maxItems": min,
}
