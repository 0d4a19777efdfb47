"""The picture of what was resident when, as shapes."""

from __future__ import annotations

from llm_router_mw.simulator.canvas import Area, Box, Canvas, Line, Words
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.picture import draw
from llm_router_mw.simulator.residence import Span
from tests.support.simulation import facts

MODELS = [facts("small", size=1 << 30), facts("large", size=3 << 30), facts("never")]
RESIDENT, ASLEEP, LOADING = "#3b73b9", "#a9c7e8", "#e8862e"
LEFT, WIDTH = 210, 940
LEGEND = 44
"""Where its boxes are."""


def drawn(*spans: Span, end: float = 100.0) -> Canvas:
    return draw("a & b", spans, MODELS, Machine({"gpu": 4 << 30}), end)


def words(canvas: Canvas) -> list[str]:
    return [shape.text for shape in canvas.shapes if isinstance(shape, Words)]


def bars(canvas: Canvas, colour: str) -> list[tuple[float, float]]:
    """Return where the bars of *colour* begin, and how wide they are."""
    return [
        (shape.x - LEFT, shape.width)
        for shape in canvas.shapes
        if isinstance(shape, Box) and shape.colour == colour and shape.y != LEGEND
    ]


def test_models_that_were_resident_have_a_row_the_largest_first() -> None:
    shown = words(drawn(Span(0, "loaded", 0.0, 10.0), Span(1, "loaded", 20.0, 30.0)))

    assert shown[0] == "a & b"
    assert shown.index("large") < shown.index("3.0") < shown.index("small") < shown.index("1.0")
    assert "never" not in shown


def test_each_state_has_its_colour_which_is_explained() -> None:
    canvas = drawn(Span(0, "loading", 0.0, 50.0), Span(0, "loaded", 50.0, 100.0))

    assert bars(canvas, LOADING) == [(0.0, WIDTH / 2)]
    assert bars(canvas, RESIDENT) == [(WIDTH / 2, WIDTH / 2)]
    assert bars(canvas, ASLEEP) == []
    assert {"resident", "asleep", "stopping", "loading"} <= set(words(canvas))


def test_each_load_can_be_seen_and_all_are_counted() -> None:
    loads = [Span(0, "loading", float(at), at + 0.01) for at in range(0, 100, 20)]
    canvas = drawn(*loads, Span(0, "loaded", 0.01, 20.0))

    assert [width for _, width in bars(canvas, LOADING)] == [2.0] * 5
    assert canvas.shapes.index(_first(canvas, RESIDENT)) < canvas.shapes.index(
        _first(canvas, LOADING)
    ), "a long stay must not hide a load"
    assert "5" in words(canvas)


def _first(canvas: Canvas, colour: str) -> Box:
    return next(
        shape
        for shape in canvas.shapes
        if isinstance(shape, Box) and shape.colour == colour and shape.y != LEGEND
    )


def test_what_is_narrower_than_a_pixel_is_drawn_together() -> None:
    many = [Span(0, "loaded", place / 1000, (place + 0.5) / 1000) for place in range(1000)]

    assert len(bars(drawn(*many), RESIDENT)) < 10


def test_memory_in_use_is_drawn_below_under_the_line_of_what_there_is() -> None:
    canvas = drawn(Span(1, "loaded", 25.0, 50.0), Span(1, "asleep", 50.0, 75.0))

    [area] = [shape for shape in canvas.shapes if isinstance(shape, Area)]
    [limit] = [shape for shape in canvas.shapes if isinstance(shape, Line) and shape.dashed]
    floor = area.points[0][1]
    # Three quarters, from a quarter of the width to its half.
    height = limit.y1 + (floor - limit.y1) / 4
    assert area.points[1:4] == (
        (LEFT + 235.0, floor),
        (LEFT + 235.0, height),
        (LEFT + 470.0, height),
    )
    assert "4 GiB" in words(canvas)


def test_one_that_takes_the_place_of_another_at_once_is_not_lost() -> None:
    canvas = drawn(Span(0, "loaded", 0.0, 50.0), Span(1, "loading", 50.001, 100.0))

    [area] = [shape for shape in canvas.shapes if isinstance(shape, Area)]
    assert len({y for _, y in area.points}) == 3, "none, a quarter, three quarters"


def test_time_has_marks_and_a_unit() -> None:
    shown = words(drawn(Span(0, "loaded", 0.0, 1.0), end=119.0))
    assert {"0:00", "1:00", "time, min:s"} <= set(shown)
    shown = words(drawn(Span(0, "loaded", 0.0, 1.0), end=8000.0))
    assert {"2:00:00", "time, h:min:s"} <= set(shown)


def test_a_picture_of_nothing_is_one() -> None:
    assert words(drawn(end=0.0))[0] == "a & b"
