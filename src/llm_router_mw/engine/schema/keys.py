"""Keys of an object, without the quote that all of them begin with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from llm_router_mw.engine.schema.characters import raw_but
from llm_router_mw.engine.schema.rules import RuleBook, constant, literal

QUOTE = r'"\""'
_ESCAPED = '"\\bfnrt'
"""What follows a backslash in keys. No other escapes: they would spell a known name differently."""
_UNIT = re.compile(r"\\.|[^\\]", re.DOTALL)
_END = ""

_Tree = dict[str, Any]
"""Names, unit by unit: an escape or a character → what may follow. The end has a key of its own."""


def key(name: str) -> str:
    """Return the expression for the key *name*, but for the quote before it."""
    return constant(name).replace('\\"', "", 1)


def other_key(names: Iterable[str], book: RuleBook) -> str:
    """Return the expression for a key that is none of *names*, but for the quote before it."""
    tree = _tree(names)
    anything = book.add(f"( {raw_but('')} | {_escape(_ESCAPED)} )*")
    # From the leaves to the root and without recursion: a name may be long.
    order, todo = [], [tree]
    while todo:
        node = todo.pop()
        order.append(node)
        todo += [child for unit, child in node.items() if unit != _END]
    rules: dict[int, str] = {}
    for node in reversed(order):
        rules[id(node)] = book.add(_elsewhere(node, rules, anything))
    return f"{rules[id(tree)]} {QUOTE}"


def _tree(names: Iterable[str]) -> _Tree:
    tree: _Tree = {}
    for name in names:
        text = json.dumps(name, ensure_ascii=False)[1:-1]
        if "\\u" in text:
            # Keys never hold such an escape, so this name cannot be met.
            continue
        node = tree
        for unit in _UNIT.findall(text):
            node = node.setdefault(unit, {})
        node[_END] = {}
    return tree


def _elsewhere(node: _Tree, rules: dict[int, str], anything: str) -> str:
    """Return the expression for the rest of a key that must not end where a name does."""
    children = [unit for unit in node if unit != _END]
    choices = [f"{literal(unit)} {rules[id(node[unit])]}" for unit in children]
    choices.append(f"{raw_but(''.join(unit for unit in children if len(unit) == 1))} {anything}")
    letters = "".join(letter for letter in _ESCAPED if "\\" + letter not in node)
    if letters:
        choices.append(f"{_escape(letters)} {anything}")
    inside = f"( {' | '.join(choices)} )"
    return inside if _END in node else f"{inside}?"


def _escape(letters: str) -> str:
    codes = "".join(f"\\x{ord(letter):02X}" for letter in letters)
    return rf'"\\" [{codes}]'
