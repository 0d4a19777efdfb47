"""A canvas as SVG and as PNG."""

from __future__ import annotations

import builtins
import io
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from llm_router_mw.errors import ConfigError
from llm_router_mw.simulator.canvas import Area, Box, Canvas, Line, Words
from llm_router_mw.simulator.png import check_png, to_png
from llm_router_mw.simulator.svg import to_svg

SVG = "{http://www.w3.org/2000/svg}"
RED, GREEN, BLUE, BLACK, WHITE = "#ff0000", "#00ff00", "#0000ff", "#000000", "#ffffff"
CANVAS = Canvas(
    60,
    40,
    (
        Box(10, 10, 20, 10, RED),
        Box(40, 10, 10, 10, RED),
        Box(40, 10, 5, 10, GREEN),
        Area(((0, 40), (0, 30), (20, 30), (20, 40)), BLUE, BLACK),
        Line(30, 0, 30, 40, BLACK),
        Line(0, 5, 60, 5, GREEN, dashed=True),
        Words(55, 38, "<b> & c", BLACK, anchor="end", bold=True),
    ),
)


class TestSVG:
    def picture(self) -> ElementTree.Element:
        return ElementTree.fromstring(to_svg(CANVAS))

    def test_it_is_as_large_as_the_canvas_and_white(self) -> None:
        picture = self.picture()
        assert picture.get("viewBox") == "0 0 60 40"
        assert picture[0].get("fill") == WHITE

    def test_boxes_of_one_colour_are_one_path(self) -> None:
        red, green = self.picture().findall(f"{SVG}path")[:2]
        assert (red.get("fill"), red.get("d")) == (
            RED,
            "M10.0 10h20.0v10h-20.0zM40.0 10h10.0v10h-10.0z",
        )
        assert green.get("fill") == GREEN

    def test_areas_and_lines_are_paths(self) -> None:
        area, line, dashed = self.picture().findall(f"{SVG}path")[2:]
        assert area.get("d") == "M0.0 40.0L0.0 30.0L20.0 30.0L20.0 40.0z"
        assert (area.get("fill"), area.get("stroke")) == (BLUE, BLACK)
        assert (line.get("d"), line.get("stroke-dasharray")) == ("M30.0 0L30.0 40", None)
        assert dashed.get("stroke-dasharray") == "4 3"

    def test_text_stays_text(self) -> None:
        text = self.picture().find(f"{SVG}text")
        assert text is not None
        assert text.text == "<b> & c"
        assert (text.get("text-anchor"), text.get("font-weight")) == ("end", "600")


class TestPNG:
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(to_png(CANVAS))).convert("RGB")

    def colour(self, x: float, y: float) -> str:
        found: Any = self.picture().getpixel((int(2 * x), int(2 * y)))
        return "#{:02x}{:02x}{:02x}".format(*found)

    def test_it_has_two_dots_for_each_pixel(self) -> None:
        assert self.picture().size == (120, 80)

    @pytest.mark.parametrize(
        ("x", "y", "colour"),
        [
            (5, 15, WHITE),
            (10, 10, RED),
            (29, 19, RED),
            (30, 15, BLACK),
            (31, 20, WHITE),
            (42, 15, GREEN),
            (47, 15, RED),
            (10, 35, BLUE),
            (2, 5, GREEN),
            (5.5, 5, WHITE),
        ],
    )
    def test_shapes_are_where_they_belong(self, x: float, y: float, colour: str) -> None:
        assert self.colour(x, y) == colour

    def test_text_ends_where_it_is_to_end(self) -> None:
        text = self.picture().crop((64, 56, 120, 80))
        box = text.point(lambda value: 255 - value).getbbox()
        assert box is not None
        assert 64 + box[2] <= 2 * 55 + 2

    def test_without_pillow_it_is_said_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def missing(name: str, *arguments: Any) -> Any:
            if name.startswith("PIL"):
                raise ImportError(name)
            return real(name, *arguments)

        monkeypatch.setattr(builtins, "__import__", missing)
        with pytest.raises(ConfigError, match=r"pip install 'llm-router-mw\[picture\]'.*\.svg"):
            check_png()
