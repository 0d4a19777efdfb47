"""Counting the cells of a context."""

from __future__ import annotations

from llm_router_mw.engine.cells import Cells


def test_cells_that_are_taken_are_not_free() -> None:
    cells = Cells(10)
    taken = cells.take(4)
    assert len(set(taken)) == 4
    assert cells.n_free == 6


def test_cells_that_are_given_back_are_free_again() -> None:
    cells = Cells(10)
    cells.give_back(cells.take(10))
    assert cells.n_free == 10
    assert len(set(cells.take(10))) == 10


def test_shared_cells_are_free_when_the_last_user_is_gone() -> None:
    cells = Cells(10)
    taken = cells.take(3)
    cells.share(taken)
    assert cells.is_shared(taken)
    cells.give_back(taken)
    assert cells.n_free == 7
    assert not cells.is_shared(taken)
    cells.give_back(taken)
    assert cells.n_free == 10


def test_taking_none_takes_none() -> None:
    cells = Cells(2)
    assert cells.take(0) == []
    assert cells.n_free == 2
