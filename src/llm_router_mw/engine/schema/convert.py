"""JSON schema to GBNF: what the grammar lets through is valid by the schema.

The other way round need not hold: of optional spellings the grammar knows some only. What it cannot
promise (``not``, ``uniqueItems``, …) is refused rather than ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_router_mw.engine.schema.error import SchemaError
from llm_router_mw.engine.schema.merge import Schema, assertions, merged
from llm_router_mw.engine.schema.objects import array, json_object
from llm_router_mw.engine.schema.rules import RuleBook, json_text
from llm_router_mw.engine.schema.scalars import number, string
from llm_router_mw.engine.schema.texts import any_of

_MAX_DEPTH = 64
_MAX_STEPS = 20_000
"""Schemas looked at, those that are looked at again with others merged in included."""
_MAX_CHOICES = 500
_KINDS: dict[str, tuple[str, ...]] = {
    "object": (
        "properties",
        "required",
        "additionalProperties",
        "minProperties",
        "maxProperties",
    ),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_KNOWN = frozenset(("$ref", "allOf", "anyOf", "oneOf", "const", "enum", "type")).union(
    *_KINDS.values()
)
_JSON_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and value % 1 == 0,
    "number": lambda value: _is_number(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def schema_to_gbnf(schema: Any) -> str:
    """Return a grammar for JSON texts that are valid by *schema*.

    Raises:
        SchemaError: it is no JSON schema, or one that a grammar cannot promise.
    """
    return _Converter(schema).grammar()


class _Converter:
    """Turns the schemas within a root schema into rules."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._book = RuleBook()
        self._references: dict[str, str] = {}
        self._n_steps = 0
        self._depth = 0

    def grammar(self) -> str:
        return self._book.text(self.rule(self._root, "#"))

    def rule(self, schema: Any, place: str) -> str:
        """Return the name of the rule for *schema*."""
        self._count_step()
        if self._depth == _MAX_DEPTH:
            raise SchemaError(place, f"schemas are nested deeper than {_MAX_DEPTH}")
        self._depth += 1
        try:
            return self._rule(self._checked(schema, place), place)
        finally:
            self._depth -= 1

    def _count_step(self) -> None:
        self._n_steps += 1
        if self._n_steps > _MAX_STEPS:
            raise SchemaError("", "the schema is too large, or repeats itself too often")

    def _checked(self, schema: Any, place: str) -> Schema:
        if schema is True:
            return {}
        if schema is False:
            raise SchemaError(place, "nothing is valid here; leave it out")
        if not isinstance(schema, dict):
            raise SchemaError(place, "a schema must be an object or a boolean")
        found = assertions(schema)
        for name in found:
            if name not in _KNOWN:
                raise SchemaError(place, f"the keyword {name!r} is not supported")
        return found

    def _rule(self, schema: Schema, place: str) -> str:
        if "$ref" in schema:
            return self._reference(schema, place)
        if "allOf" in schema:
            return self._all_of(schema, place)
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._any_of(name, schema, place)
        if "const" in schema or "enum" in schema:
            return self._constants(schema, place)
        kinds = schema.get("type", None)
        if isinstance(kinds, list):
            return self._union(
                [({**schema, "type": kind}, place) for kind in dict.fromkeys(map(str, kinds))],
                place,
            )
        return self._typed(_kind(schema) if kinds is None else kinds, schema, place)

    def _typed(self, kind: Any, schema: Schema, place: str) -> str:
        if kind == "object":
            return json_object(schema, self._book, self.rule, place)
        if kind == "array":
            return array(schema, self._book, self.rule, place)
        if kind == "string":
            return string(schema, self._book, place)
        if kind in ("integer", "number"):
            return number(kind, schema, self._book, place)
        if kind in ("boolean", "null", "value"):
            return self._book.primitive(kind)
        raise SchemaError(place, f"there is no type {kind!r}")

    def _reference(self, schema: Schema, place: str) -> str:
        reference = schema["$ref"]
        others = {name: value for name, value in schema.items() if name != "$ref"}
        target = self._resolve(reference, place)
        if others:
            return self.rule(merged(_object(target, place), others, place), place)
        # The name comes first, so that a schema may refer to itself.
        name = self._references.get(reference)
        if name is None:
            name = self._references[reference] = self._book.reserve()
            self._book.give(name, self.rule(target, reference))
        return name

    def _resolve(self, reference: Any, place: str) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise SchemaError(
                place, f"$ref is {reference!r}; it must lead to a place in the schema itself (#/…)"
            )
        target = self._root
        for step in reference.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdigit() and int(key) < len(target):
                target = target[int(key)]
            else:
                raise SchemaError(place, f"$ref leads to {reference}, where there is nothing")
        return target

    def _all_of(self, schema: Schema, place: str) -> str:
        result = {name: value for name, value in schema.items() if name != "allOf"}
        for index, part in enumerate(_list(schema["allOf"], f"{place}/allOf")):
            result = merged(result, self._without_reference(part, f"{place}/allOf/{index}"), place)
        return self.rule(result, place)

    def _without_reference(self, schema: Any, place: str) -> Schema:
        found = self._checked(schema, place)
        for _ in range(_MAX_DEPTH):
            self._count_step()
            if "$ref" not in found:
                return found
            target = self._checked(self._resolve(found.pop("$ref"), place), place)
            found = merged(target, found, place)
        raise SchemaError(place, "$ref leads in a circle")

    def _any_of(self, name: str, schema: Schema, place: str) -> str:
        rest = {key: value for key, value in schema.items() if key != name}
        choices: list[tuple[Any, str]] = []
        for index, choice in enumerate(_list(schema[name], f"{place}/{name}")):
            where = f"{place}/{name}/{index}"
            if choice is False:
                continue
            if rest:
                choice = merged(rest, self._without_reference(choice, where), where)
            choices.append((choice, where))
        return self._union(choices, place)

    def _union(self, choices: list[tuple[Any, str]], place: str) -> str:
        if not 1 <= len(choices) <= _MAX_CHOICES:
            raise SchemaError(place, f"there must be 1 to {_MAX_CHOICES} choices")
        names = [self.rule(schema, where) for schema, where in choices]
        return self._book.add(" | ".join(dict.fromkeys(names)))

    def _constants(self, schema: Schema, place: str) -> str:
        values = _list(schema["enum"], f"{place}/enum") if "enum" in schema else [schema["const"]]
        if "const" in schema:
            values = [value for value in values if value == schema["const"]]
        kinds = schema.get("type", list(_JSON_TYPES))
        kinds = kinds if isinstance(kinds, list) else [kinds]
        fitting = [
            value
            for value in values
            if any(kind in _JSON_TYPES and _JSON_TYPES[kind](value) for kind in map(str, kinds))
        ]
        if not fitting:
            raise SchemaError(place, "none of the values is of the type that is asked for")
        texts = any_of([json_text(value) for value in fitting], self._book)
        return self._book.add(f"{texts} {self._book.primitive('space')}")


def _kind(schema: Schema) -> str:
    """Return the type that a schema without one speaks of."""
    for kind, names in _KINDS.items():
        if any(name in schema for name in names):
            return kind
    return "value"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _object(schema: Any, place: str) -> Schema:
    if isinstance(schema, dict):
        return schema
    raise SchemaError(place, "$ref leads to a boolean, which cannot be put together with more")


def _list(value: Any, place: str) -> list[Any]:
    if isinstance(value, list) and value:
        return value
    raise SchemaError(place, "must be a list that is not empty")
