"""The picture of what was resident when."""

from __future__ import annotations

from xml.etree import ElementTree

from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.picture import draw
from llm_router_mw.simulator.residence import Span
from tests.support.simulation import facts

SVG = "{http://www.w3.org/2000/svg}"
MODELS = [facts("small", size=1 << 30), facts("<large>", size=3 << 30), facts("never")]


def drawn(*spans: Span, end: float = 100.0) -> ElementTree.Element:
    text = draw("a & b", spans, MODELS, Machine({"gpu": 4 << 30}), end)
    return ElementTree.fromstring(text)


def words(picture: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]


def bars(picture: ElementTree.Element, colour: str) -> str:
    return next((p.get("d", "") for p in picture.iter(f"{SVG}path") if p.get("fill") == colour), "")


def test_models_that_were_resident_have_a_row_the_largest_first() -> None:
    shown = words(drawn(Span(0, "loaded", 0.0, 10.0), Span(1, "loaded", 20.0, 30.0)))

    rows = [text for text in shown if "GiB" in text and "memory" not in text]
    assert rows == ["<large> 3.0 GiB", "small 1.0 GiB"]
    assert shown[0] == "a & b"


def test_each_state_has_its_colour_and_place() -> None:
    picture = drawn(Span(0, "loading", 0.0, 50.0), Span(0, "loaded", 50.0, 100.0))

    assert bars(picture, "#f2a33a").startswith("M190.0 58h470.0")
    assert bars(picture, "#2f6fb0").startswith("M660.0 58h470.0")
    assert bars(picture, "#b9cfe4") == ""


def test_what_is_narrower_than_a_pixel_is_drawn_together() -> None:
    many = [Span(0, "loaded", place / 1000, (place + 0.5) / 1000) for place in range(1000)]

    assert bars(drawn(*many), "#2f6fb0").count("M") < 10


def test_memory_in_use_is_drawn_below() -> None:
    picture = drawn(Span(1, "loaded", 25.0, 50.0), Span(1, "asleep", 50.0, 75.0))

    used = bars(picture, "#cfe3c7")
    assert "memory 4.0 GiB" in words(picture)
    # Three quarters of 70 pixels, from a quarter to a half of the width.
    assert "H425.0V113.5H660.0V166.0" in used


def test_time_has_marks() -> None:
    assert {"0:00", "1:00"} <= set(words(drawn(Span(0, "loaded", 0.0, 1.0), end=119.0)))
    assert "2:00:00" in words(drawn(Span(0, "loaded", 0.0, 1.0), end=8000.0))


def test_a_picture_of_nothing_is_one() -> None:
    assert words(drawn(end=0.0))[0] == "a & b"
