"""Regular expressions as grammars. Backreferences and looking around are beyond a grammar."""

from __future__ import annotations

import re
from typing import NoReturn

from msgspec import Struct

from llm_router_mw.engine.schema import characters
from llm_router_mw.engine.schema.characters import Ranges
from llm_router_mw.engine.schema.error import SchemaError
from llm_router_mw.engine.schema.rules import RuleBook

_MAX_DEPTH = 32
_MAX_PLACES = 500
"""Places in the pattern where a text may be at once; llama.cpp follows each of them."""
_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d{1,7})(?:(,)(\d{1,7})?)?\})\??")
_NAMED_GROUP = re.compile(r"\?<[A-Za-z_]\w*>")
_RANGE = re.compile(r"-[^\]]")
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")
_SETS = {
    "d": characters.DIGITS,
    "D": characters.NO_DIGITS,
    "w": characters.WORD,
    "W": characters.NO_WORD,
    "s": characters.BLANKS,
    "S": characters.NO_BLANKS,
}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}


class Node(Struct, frozen=True):
    """An expression, and what is known of the texts that it matches."""

    text: str
    shortest: int
    longest: int | None
    """Characters; None is without end."""
    size: int
    """Places in it, with all repetitions written out."""
    places: int
    """Those of them where a text may be at once, about."""
    is_character: bool = False
    is_run: bool = False
    """Whether it is one character, repeated: there a text is in one place at a time."""


_EMPTY = Node("", 0, 0, 0, 0)


def pattern(source: str, book: RuleBook, place: str) -> Node:
    """Return the inside of a JSON string in which *source* matches somewhere.

    Raises:
        SchemaError: *source* is no regular expression, or none that a grammar can follow.
    """
    return _Parser(source, book, place).whole()


class _Parser:
    def __init__(self, source: str, book: RuleBook, place: str) -> None:
        self._source = source
        self._book = book
        self._place = place
        self._at = 0

    def whole(self) -> Node:
        choices = [self._anchored()]
        while self._take("|"):
            choices.append(self._anchored())
        if self._at < len(self._source):
            self._fail("a parenthesis is closed that was not opened")
        node = _any_of(choices)
        if node.places > _MAX_PLACES:
            self._fail("it repeats repetitions too often")
        return node

    def _anchored(self) -> Node:
        """Return an alternative with or without anchors; they are refused elsewhere."""
        anything = Node(f"{self._book.primitive('char')}*", 0, None, 1, 1, is_run=True)
        before = _EMPTY if self._take("^") else anything
        inside = self._sequence(0)
        after = _EMPTY if self._take("$") else anything
        return _one_after_another([before, inside, after])

    def _alternatives(self, depth: int) -> Node:
        choices = [self._sequence(depth)]
        while self._take("|"):
            choices.append(self._sequence(depth))
        return _any_of(choices)

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self._at < len(self._source) and self._source[self._at] not in "|)":
            if self._source[self._at] == "$" and self._ends_here():
                break
            parts.append(self._quantified(self._atom(depth)))
        return _one_after_another(parts)

    def _ends_here(self) -> bool:
        return self._source[self._at + 1 : self._at + 2] in ("", "|")

    def _atom(self, depth: int) -> Node:
        character = self._source[self._at]
        self._at += 1
        if character == "(":
            return self._group(depth)
        if character == "[":
            return self._character(self._class())
        if character == ".":
            return self._character(characters.NO_LINE_ENDS)
        if character == "\\":
            return self._character(self._escape())
        if character in "^$":
            self._fail("anchors are possible at the beginning and the end only")
        if _QUANTIFIER.match(self._source, self._at - 1):
            self._fail("there is nothing to repeat")
        return self._character(((ord(character), ord(character)),))

    def _group(self, depth: int) -> Node:
        if depth == _MAX_DEPTH:
            self._fail(f"groups are nested deeper than {_MAX_DEPTH}")
        named = _NAMED_GROUP.match(self._source, self._at)
        if named:
            self._at = named.end()
        elif self._take("?") and not self._take(":"):
            self._fail("looking around and flags are not supported")
        inside = self._alternatives(depth + 1)
        if not self._take(")"):
            self._fail("a parenthesis is not closed")
        return inside

    def _quantified(self, node: Node) -> Node:
        found = _QUANTIFIER.match(self._source, self._at)
        if found is None:
            return node
        self._at = found.end()
        low, high = _bounds(found)
        if node.shortest == 0 and found[1] != "?":
            self._fail("it repeats something that may be empty")
        name = self._book.add(node.text)
        longest = None if high is None or node.longest is None else node.longest * high
        size = node.size * max(1, low, high or 0)
        text = self._book.repeat(name, low, high, self._place)
        places = 1 if node.is_character else size
        return Node(text, node.shortest * low, longest, size, places, is_run=node.is_character)

    def _class(self) -> Ranges:
        negated = self._take("^")
        found: list[tuple[int, int]] = []
        while not self._take("]"):
            low = self._class_member()
            # A dash at the end of the class is a character like others.
            if len(low) == 1 and _RANGE.match(self._source, self._at):
                self._at += 1
                high = self._class_member()
                if len(high) != 1 or low[0][0] > high[0][1]:
                    self._fail("a range of characters has no end, or the wrong one")
                low = ((low[0][0], high[0][1]),)
            found += low
        ranges = characters.union(found)
        return self._negated(ranges) if negated else ranges

    @staticmethod
    def _negated(ranges: Ranges) -> Ranges:
        # Other engines may take more for a blank, a digit or a letter than the sets here hold.
        if characters.intersection(ranges, characters.BLANKS) == characters.BLANKS:
            ranges = characters.union((*ranges, *characters.BLANKS_ANYWHERE))
        found = characters.complement(ranges)
        if characters.intersection(ranges, characters.DIGITS) == characters.DIGITS:
            found = characters.intersection(found, characters.ASCII)
        return found

    def _class_member(self) -> Ranges:
        if self._at >= len(self._source):
            self._fail("a class of characters is not closed")
        character = self._source[self._at]
        self._at += 1
        if character == "\\":
            if self._take("b"):
                return ((8, 8),)
            return self._escape()
        return ((ord(character), ord(character)),)

    def _escape(self) -> Ranges:
        if self._at >= len(self._source):
            self._fail("it ends with a backslash")
        code = _HEX.match(self._source, self._at)
        if code is not None:
            self._at = code.end()
            point = int(code[1] or code[2] or code[3], 16)
            if point > characters.LAST:
                self._fail("there is no such character")
            return ((point, point),)
        letter = self._source[self._at]
        self._at += 1
        if letter in _SETS:
            return _SETS[letter]
        if letter in _CONTROLS:
            return ((_CONTROLS[letter], _CONTROLS[letter]),)
        if letter.isalnum():
            self._fail(f"the escape \\{letter} is not supported")
        return ((ord(letter), ord(letter)),)

    def _character(self, ranges: Ranges) -> Node:
        text = characters.in_string(ranges)
        if not text:
            self._fail("no character fits that can stand in a JSON string")
        return Node(text, 1, 1, 1, 1, is_character=True)

    def _take(self, text: str) -> bool:
        found = self._source.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _fail(self, problem: str) -> NoReturn:
        rest = self._source[self._at : self._at + 20]
        raise SchemaError(self._place, f"the pattern cannot be followed: {problem} (at {rest!r})")


def _bounds(found: re.Match[str]) -> tuple[int, int | None]:
    if found[1]:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[1]]
    low = int(found[2])
    if not found[3]:
        return low, low
    return low, int(found[4]) if found[4] else None


def _one_after_another(parts: list[Node]) -> Node:
    if len(parts) == 1:
        return parts[0]
    longest = [part.longest for part in parts]
    size = sum(part.size for part in parts)
    return Node(
        " ".join(part.text for part in parts if part.text),
        sum(part.shortest for part in parts),
        None if None in longest else sum(size or 0 for size in longest),
        size,
        # Of several runs the others may have begun already, at any time; the longest counts once.
        size - max((part.size - 1 for part in parts if part.is_run), default=0),
    )


def _any_of(choices: list[Node]) -> Node:
    if len(choices) == 1:
        return choices[0]
    longest = [choice.longest for choice in choices]
    return Node(
        f"( {' | '.join(choice.text for choice in choices)} )",
        min(choice.shortest for choice in choices),
        None if None in longest else max(size or 0 for size in longest),
        sum(choice.size for choice in choices),
        sum(choice.places for choice in choices),
    )
