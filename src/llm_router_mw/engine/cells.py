"""Counts the cells of the context: how many are used, and by how many sequences each."""

from __future__ import annotations

from collections.abc import Iterable


class Cells:
    """The cells of a context, one per token; sequences with a common beginning may share some.

    llama.cpp does not say which cells are free, so the same is kept here, by numbers that mean
    nothing outside.
    """

    def __init__(self, size: int) -> None:
        self._references = [0] * size
        self._free = list(range(size))

    @property
    def n_free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """Return *count* cells for one sequence; there must be so many."""
        split = len(self._free) - count
        taken = self._free[split:]
        del self._free[split:]
        for cell in taken:
            self._references[cell] = 1
        return taken

    def share(self, cells: Iterable[int]) -> None:
        """One more sequence uses *cells*."""
        for cell in cells:
            self._references[cell] += 1

    def give_back(self, cells: Iterable[int]) -> None:
        """One sequence less uses *cells*; those that nobody uses become free."""
        for cell in cells:
            self._references[cell] -= 1
            if not self._references[cell]:
                self._free.append(cell)

    def is_shared(self, cells: Iterable[int]) -> bool:
        """Whether more than one sequence uses any of *cells*."""
        return any(self._references[cell] > 1 for cell in cells)
