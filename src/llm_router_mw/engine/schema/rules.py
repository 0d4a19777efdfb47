"""Collecting the rules of a grammar, and the expressions that they are made of."""

from __future__ import annotations

import json
from math import isqrt
from typing import Any

from llm_router_mw.engine.schema.error import SchemaError

_MAX_CHARACTERS = 250_000
_MAX_REPETITIONS = 1_000_000
_PLAIN_REPETITIONS = 100
"""More are written as blocks of blocks, which takes the root of the room."""

_PRIMITIVES = {
    # As llama.cpp: models like to break lines and to indent, but must not do so for ever.
    "space": r'( " " | "\n"{1,2} [ \t]{0,20} )?',
    # No half of a surrogate pair, which many parsers refuse.
    "escape": r'"\\" ( ["\\/bfnrt] | "u" ( [0-9a-cA-CefEF] [0-9a-fA-F]{3}'
    r" | [dD] [0-7] [0-9a-fA-F]{2} ) )",
    "char": r'[^"\\\x00-\x1F\x7F] | escape',
    "string": r'"\"" char* "\"" space',
    "digits": r"[0-9]{1,15}",
    "whole": r'"0" | [1-9] [0-9]{0,14}',
    "integer": r'"-"? whole space',
    "number": r'"-"? whole ( "." digits )? ( [eE] [-+]? [0-9]{1,2} )? space',
    "boolean": r'( "true" | "false" ) space',
    "null": r'"null" space',
    "member": r'string ":" space value',
    "object": r'"{" space ( member ( "," space member )* )? "}" space',
    "array": r'"[" space ( value ( "," space value )* )? "]" space',
    "value": r"object | array | string | number | boolean | null",
    "date": r'[0-9]{4} "-" ( ( "0" [13578] | "1" [02] ) "-" ( "0" [1-9] | [12] [0-9] | "3" [01] )'
    r' | ( "0" [469] | "11" ) "-" ( "0" [1-9] | [12] [0-9] | "30" )'
    r' | "02-" ( "0" [1-9] | [12] [0-9] ) )',
    "time": r'( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9] ":" [0-5] [0-9] ( "." [0-9]{3} )?'
    r' ( "Z" | [-+] ( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9] )',
    "uuid": r'[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
}
_NEEDS = {
    "char": ("escape",),
    "string": ("char", "space"),
    "integer": ("whole", "space"),
    "number": ("whole", "digits", "space"),
    "boolean": ("space",),
    "null": ("space",),
    "member": ("string", "value"),
    "object": ("member",),
    "array": ("value",),
    "value": ("object", "array", "string", "number", "boolean", "null"),
}


class RuleBook:
    """The rules so far; equal ones are kept once."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._n_characters = 0

    def reserve(self) -> str:
        """Return the name of a rule that is given later."""
        name = f"r{len(self._rules)}"
        self._rules[name] = ""
        return name

    def give(self, name: str, body: str) -> None:
        """Say what the rule *name* is.

        Raises:
            SchemaError: the grammar becomes too large.
        """
        self._n_characters += len(name) + len(body)
        if self._n_characters > _MAX_CHARACTERS:
            raise SchemaError("", "the schema makes too large a grammar; simplify it")
        self._rules[name] = body

    def add(self, body: str) -> str:
        """Return the name of a rule with *body*."""
        name = self._names.get(body)
        if name is None:
            name = self._names[body] = self.reserve()
            self.give(name, body)
        return name

    def primitive(self, name: str) -> str:
        """Return *name*, one of the rules that everything is built on, after adding it."""
        if name not in self._rules:
            self.give(name, _PRIMITIVES[name])
            for needed in _NEEDS.get(name, ()):
                self.primitive(needed)
        return name

    def repeat(self, item: str, low: int, high: int | None, place: str) -> str:
        """Return *item*, a single element, from *low* to *high* times; None is without end.

        Raises:
            SchemaError: that is too often, or *low* is above *high*.
        """
        if max(low, high or 0) > _MAX_REPETITIONS:
            raise SchemaError(place, f"more than {_MAX_REPETITIONS} repetitions are not possible")
        if high is not None and low > high:
            raise SchemaError(place, f"the lowest number, {low}, is above the highest, {high}")
        more = f"{item}*" if high is None else self._up_to(item, high - low)
        return f"{self._exactly(item, low)} {more}".strip()

    def _exactly(self, item: str, times: int) -> str:
        if times <= _PLAIN_REPETITIONS:
            return _times(item, f"{times}") if times else ""
        size = isqrt(times)
        blocks, rest = divmod(times, size)
        block = self.add(_times(item, f"{size}"))
        return f"{_times(block, f'{blocks}')} {self._exactly(item, rest)}".strip()

    def _up_to(self, item: str, times: int) -> str:
        if times <= _PLAIN_REPETITIONS:
            return _times(item, f"0,{times}") if times else ""
        # The last block may be cut short anywhere, so after each block there is one choice only.
        size = isqrt(times)
        blocks, rest = divmod(times, size)
        block = self.add(_times(item, f"{size}"))
        return f"{_times(block, f'0,{blocks - 1}')} {_times(item, f'0,{size + rest}')}"

    def text(self, root: str) -> str:
        """Return the grammar that begins with the rule *root*."""
        lines = [f"{name} ::= {body}" for name, body in self._rules.items()]
        return "\n".join([f"root ::= {root}", *lines])


def _times(item: str, bounds: str) -> str:
    return f"{item}{{{bounds}}}"


def literal(text: str) -> str:
    """Return the expression for exactly *text*."""
    return '"' + "".join(map(_literal_character, text)) + '"'


def constant(value: Any) -> str:
    """Return the expression for the JSON text of *value*."""
    return literal(json_text(value))


def json_text(value: Any) -> str:
    """Return *value* as JSON, as short as possible."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Half of a surrogate pair can be written as an escape only.
    if any("\ud800" <= character <= "\udfff" for character in text):
        text = json.dumps(value, separators=(",", ":"))
    return text


def _literal_character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character >= " " else f"\\x{ord(character):02X}"
