"""Reading GBNF: the rules of a grammar, as far as they decide what it costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from msgspec import Struct

_MAX_DEPTH = 64
"""Groups within groups; llama.cpp calls itself for each."""
_MAX_REPEAT = 2000
"""llama.cpp refuses more, or silently takes them for "without end"."""
_UNBOUNDED = -1
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_ESCAPE = r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[trn\\\"\[\]-])"
_LITERAL = re.compile(rf'"((?:[^"\\]|{_ESCAPE})*)"')
_CLASS = re.compile(rf"\[\^?((?:[^\]\\]|{_ESCAPE})*)\]")
_TOKEN = re.compile(r"!?<(?:\[[0-9]{1,9}\]|[^>]*)>")
_REPEAT = re.compile(r"\{\s*([0-9]{1,9})\s*(?:(,)\s*([0-9]{1,9})?\s*)?\}")
_QUICK_REPEATS = {"*": (0, _UNBOUNDED), "+": (1, _UNBOUNDED), "?": (0, 1)}


class Item(Struct, frozen=True):
    """A part of a sequence: terminals, or a reference to a rule, so many times."""

    size: int
    """Elements that llama.cpp keeps for one occurrence."""
    rule: str = ""
    """The rule that it refers to; empty for terminals."""
    low: int = 1
    high: int = 1
    """Occurrences; -1 is without end."""

    @property
    def repeats(self) -> bool:
        return self.high != 1

    @property
    def n_copies(self) -> int:
        """How often llama.cpp writes it down."""
        return max(self.low, self.high, 1)


Sequence = tuple[Item, ...]
Rules = dict[str, list[Sequence]]
"""Name → alternatives. A group is a rule of its own, with a name that no grammar can give."""


class GBNFError(ValueError):
    """The text is no grammar; the message tells what is wrong, and where."""


def parse(text: str) -> Rules:
    """Return the rules of the grammar *text*.

    Raises:
        GBNFError: it is none.
    """
    return _Parser(text).rules()


class _Parser:
    """Goes through the text once, from the left to the right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._rules: Rules = {}
        self._readers: dict[str, Callable[[int], Item | None]] = {
            '"': self._literal,
            "[": self._character_class,
            "<": self._token,
            "!": self._token,
            ".": self._any_character,
            "(": self._group,
        }

    def rules(self) -> Rules:
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._text):
            name = self._take(_NAME, "the name of a rule")[0]
            self._skip(_SPACE)
            self._expect("::=")
            self._skip(_SPACE_AND_LINES)
            self._rules[name] = self._alternatives(0)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                self._fail("expected the end of the line")
            self._skip(_SPACE_AND_LINES)
        return self._rules

    def _alternatives(self, depth: int) -> list[Sequence]:
        found = [self._sequence(depth)]
        while self._peek() == "|":
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            found.append(self._sequence(depth))
        return found

    def _sequence(self, depth: int) -> Sequence:
        items: list[Item] = []
        last: Item | None = None
        while True:
            next_character = self._peek()
            if next_character in _QUICK_REPEATS:
                self._at += 1
                last = self._repeat(items, last, *_QUICK_REPEATS[next_character])
            elif next_character == "{":
                last = self._repeat(items, last, *self._bounds())
            elif next_character in self._readers:
                last = self._append(items, self._readers[next_character](depth))
            elif _NAME.match(next_character):
                last = self._append(items, Item(1, self._take(_NAME, "a rule")[0]))
            else:
                return tuple(items)
            self._skip(_SPACE_AND_LINES if depth else _SPACE)

    @staticmethod
    def _append(items: list[Item], item: Item | None) -> Item | None:
        if item is not None:
            items.append(item)
        return item

    def _repeat(self, items: list[Item], last: Item | None, low: int, high: int) -> Item:
        if last is None:
            self._fail("there is nothing to repeat")
        if last.repeats or last.low != 1:
            # What is repeated already becomes a group of its own.
            name = self._name_group()
            self._rules[name] = [(last,)]
            last = Item(1, name)
        if max(low, high) > _MAX_REPEAT:
            self._fail(f"at most {_MAX_REPEAT} repetitions are possible")
        if high != _UNBOUNDED and low > high:
            self._fail("the lowest number of repetitions is above the highest")
        items[-1] = Item(last.size, last.rule, low, high)
        return items[-1]

    def _bounds(self) -> tuple[int, int]:
        low, comma, high = self._take(_REPEAT, "a number of repetitions").groups()
        if comma is None:
            return int(low), int(low)
        return int(low), int(high) if high else _UNBOUNDED

    def _literal(self, _: int) -> Item | None:
        return self._characters(_LITERAL, "a closed literal without unknown escapes")

    def _character_class(self, _: int) -> Item | None:
        return self._characters(_CLASS, "a closed character class without unknown escapes")

    def _characters(self, pattern: re.Pattern[str], what: str) -> Item | None:
        size = len(self._take(pattern, what)[1])
        return Item(size) if size else None

    def _token(self, _: int) -> Item:
        self._take(_TOKEN, "a token")
        return Item(1)

    def _any_character(self, _: int) -> Item:
        self._at += 1
        return Item(1)

    def _group(self, depth: int) -> Item:
        if depth == _MAX_DEPTH:
            self._fail(f"groups are nested deeper than {_MAX_DEPTH}")
        self._at += 1
        self._skip(_SPACE_AND_LINES)
        name = self._name_group()
        self._rules[name] = self._alternatives(depth + 1)
        self._expect(")")
        return Item(1, name)

    def _name_group(self) -> str:
        name = f"({len(self._rules)}"
        self._rules[name] = []
        return name

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            self._fail(f"expected {what}")
        self._at = found.end()
        return found

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._at):
            self._fail(f"expected {text!r}")
        self._at += len(text)

    def _fail(self, problem: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        rest = self._text[self._at : self._at + 30].partition("\n")[0]
        raise GBNFError(f"line {line}: {problem} at {rest!r}")
