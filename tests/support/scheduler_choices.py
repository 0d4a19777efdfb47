"""Decisions taken one after another from bytes, so that a run can be repeated and cut short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """When the bytes have run out, everything is the first option."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        """Return a number from 0 up to *below*."""
        if self._at >= len(self._data) or below < 2:
            return 0
        value = self._data[self._at] % below
        self._at += 1
        return value

    def pick(self, options: Sequence[T]) -> T:
        return options[self.number(len(options))]

    def one_in(self, count: int) -> bool:
        return self.number(count) == count - 1
