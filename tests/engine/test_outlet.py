"""Deltas leave as far as the reader's credit goes."""

from __future__ import annotations

from llm_router_mw.engine.outlet import Outlet, Sink
from llm_router_mw.types import ContentDelta, EmbeddingDelta, FinishDelta, Usage

FINISH = FinishDelta("stop", Usage())
VECTORS = [EmbeddingDelta(index, b"") for index in range(3)]


def make(credit: int) -> tuple[Outlet, Sink]:
    sink: Sink = []
    return Outlet(1, credit, sink), sink


def test_text_written_together_leaves_as_one_delta() -> None:
    outlet, sink = make(5)
    outlet.write([ContentDelta("a"), ContentDelta("b")])
    outlet.write([ContentDelta("c")])
    outlet.flush()
    assert sink == [(1, ContentDelta("abc"))]
    assert outlet.room == 4


def test_other_deltas_stay_apart() -> None:
    outlet, sink = make(5)
    outlet.write([*VECTORS, ContentDelta("a")])
    outlet.flush()
    assert [delta for _, delta in sink] == [*VECTORS, ContentDelta("a")]


def test_what_exceeds_the_credit_waits() -> None:
    outlet, sink = make(1)
    outlet.write(VECTORS)
    outlet.end(FINISH)
    outlet.flush()
    assert [delta for _, delta in sink] == VECTORS[:1]
    outlet.add_credit(1)
    assert outlet.room == 0, "another delta would not leave at once"
    outlet.flush()
    outlet.add_credit(1)
    outlet.flush()
    assert [delta for _, delta in sink] == [*VECTORS, FINISH]


def test_the_last_delta_needs_no_credit_and_comes_once() -> None:
    outlet, sink = make(0)
    outlet.end(FINISH)
    outlet.end(FinishDelta("cancelled", Usage()))
    outlet.flush()
    outlet.flush()
    assert sink == [(1, FINISH)]


def test_discarding_keeps_the_last_delta() -> None:
    outlet, sink = make(0)
    outlet.write(VECTORS)
    outlet.end(FINISH)
    outlet.discard()
    outlet.flush()
    assert sink == [(1, FINISH)]
