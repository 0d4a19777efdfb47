"""Draws a canvas as PNG, with Pillow."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from llm_router_mw.errors import ConfigError
from llm_router_mw.simulator.canvas import Area, Box, Canvas, Line, Shape, Words

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_SCALE = 2
"""Dots per pixel, so that text is sharp."""
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}
_DASH, _GAP = 4, 3


def check_png() -> None:
    """See that pictures can be drawn as PNG.

    Raises:
        ConfigError: Pillow is missing.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "a PNG is drawn with Pillow, which is not installed: "
            "pip install 'llm-router-mw[picture]', or name a file that ends in .svg"
        ) from error


def to_png(canvas: Canvas) -> bytes:
    """Return *canvas* as the bytes of a PNG file.

    Raises:
        ConfigError: Pillow is missing.
    """
    check_png()
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (canvas.width * _SCALE, canvas.height * _SCALE), "#ffffff")
    draw = ImageDraw.Draw(image)
    for shape in canvas.shapes:
        _draw(draw, shape)
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw(draw: ImageDraw, shape: Shape) -> None:
    from PIL import ImageFont

    match shape:
        case Box():
            right, bottom = shape.x + shape.width, shape.y + shape.height
            # The last dot is drawn too.
            corners = _scaled(shape.x, shape.y, right, bottom)
            draw.rectangle(
                (corners[0], corners[1], max(corners[0], corners[2] - 1), corners[3] - 1),
                fill=shape.colour,
            )
        case Words():
            font = ImageFont.load_default(size=shape.size * _SCALE)
            draw.text(
                (round(shape.x * _SCALE), round(shape.y * _SCALE)),
                shape.text,
                fill=shape.colour,
                font=font,
                anchor=_ANCHORS[shape.anchor],
                stroke_width=1 if shape.bold else 0,
            )
        case Line() if shape.dashed:
            at = shape.x1
            while at < shape.x2:  # only level ones are dashed
                ends = _scaled(at, shape.y1, min(at + _DASH, shape.x2), shape.y2)
                draw.line(ends, fill=shape.colour, width=_SCALE)
                at += _DASH + _GAP
        case Line():
            ends = _scaled(shape.x1, shape.y1, shape.x2, shape.y2)
            draw.line(ends, fill=shape.colour, width=_SCALE)
        case Area():
            points = [tuple(_scaled(*point)) for point in shape.points]
            draw.polygon(points, fill=shape.colour, outline=shape.edge)


def _scaled(*places: float) -> tuple[float, ...]:
    return tuple(round(place * _SCALE) for place in places)
