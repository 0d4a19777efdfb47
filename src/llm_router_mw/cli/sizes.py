"""Sizes of memory, for people."""

from __future__ import annotations

from typing import Final

_STEP: Final = 1024
_UNITS: Final = ("KiB", "MiB", "GiB")
_LEAST: Final = 0.1
"""Less than so much of a unit is told in the one below."""
_FINE: Final = 10
"""Of small units tenths are told below so many; of the largest always."""


def size_text(n_bytes: int) -> str:
    """Return *n_bytes* in the unit in which it is neither nothing nor a long number."""
    if not n_bytes:
        return "0"
    level = len(_UNITS)
    while level > 1 and n_bytes < _LEAST * _STEP**level:
        level -= 1
    size = n_bytes / _STEP**level
    digits = 1 if level == len(_UNITS) or size < _FINE else 0
    return f"{size:.{digits}f} {_UNITS[level - 1]}"
