"""Sets of characters, and how they are written inside a JSON string."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]
Ranges = tuple[Range, ...]
"""Code points from … to, in order, apart from each other."""

LAST = 0x10FFFF
_SHORT_ESCAPES = {
    0x22: '"',
    0x5C: "\\",
    0x08: "b",
    0x0C: "f",
    0x0A: "n",
    0x0D: "r",
    0x09: "t",
}
# Control characters, the quote and the backslash are escaped; surrogates can be nowhere.
_RAW: Ranges = ((0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, LAST))

DIGITS: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
BLANKS: Ranges = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
ASCII: Ranges = ((0, 0x7F),)


def union(ranges: Iterable[Range]) -> Ranges:
    """Return *ranges*, which may overlap, in order and apart."""
    found: list[Range] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def complement(ranges: Ranges) -> Ranges:
    """Return all characters that are not in *ranges*."""
    found, start = [], 0
    for low, high in ranges:
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    return (*found, (start, LAST)) if start <= LAST else tuple(found)


def intersection(first: Ranges, second: Ranges) -> Ranges:
    """Return the characters that are in both."""
    return complement(union((*complement(first), *complement(second))))


# What other engines take for a digit, a letter or a blank too: it must not match their opposites.
BLANKS_ANYWHERE = union(
    (
        *BLANKS,
        (0x0B, 0x0B),
        (0x1C, 0x1F),
        (0x85, 0x85),
        (0xA0, 0xA0),
        (0x1680, 0x1680),
        (0x2000, 0x200A),
        (0x2028, 0x2029),
        (0x202F, 0x202F),
        (0x205F, 0x205F),
        (0x3000, 0x3000),
        (0xFEFF, 0xFEFF),
    )
)
NO_DIGITS = intersection(complement(DIGITS), ASCII)
NO_WORD = intersection(complement(WORD), ASCII)
NO_BLANKS = complement(BLANKS_ANYWHERE)
NO_LINE_ENDS = complement(((0x0A, 0x0A), (0x0D, 0x0D), (0x85, 0x85), (0x2028, 0x2029)))


def in_string(ranges: Ranges) -> str:
    """Return the expression for one character of *ranges* within a JSON string.

    Control characters without a short escape are left out. Nothing left: an empty text.
    """
    choices = []
    raw = intersection(ranges, _RAW)
    if raw:
        choices.append(f"[{''.join(map(_range, raw))}]")
    escaped = [
        letter
        for code, letter in _SHORT_ESCAPES.items()
        if any(low <= code <= high for low, high in ranges)
    ]
    if escaped:
        choices.append(f'"\\\\" [{"".join(_code(ord(letter)) for letter in escaped)}]')
    return f"( {' | '.join(choices)} )" if len(choices) > 1 else "".join(choices)


def raw_but(excluded: str) -> str:
    """Return the expression for a character that needs no escape and is not in *excluded*."""
    points = union((ord(character), ord(character)) for character in excluded)
    return f"[{''.join(map(_range, intersection(_RAW, complement(points))))}]"


def _range(ends: Range) -> str:
    low, high = ends
    return _code(low) if low == high else f"{_code(low)}-{_code(high)}"


def _code(point: int) -> str:
    if chr(point).isascii() and chr(point).isalnum():
        return chr(point)
    if point <= 0xFF:
        return f"\\x{point:02X}"
    return f"\\u{point:04X}" if point <= 0xFFFF else f"\\U{point:08X}"
