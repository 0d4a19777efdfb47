"""Draws a canvas as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from llm_router_mw.simulator.canvas import Area, Box, Canvas, Line, Shape, Words

_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def to_svg(canvas: Canvas) -> str:
    """Return *canvas* as the text of an SVG file."""
    width, height = canvas.width, canvas.height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{_FONT}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_shapes(canvas.shapes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _shapes(shapes: Sequence[Shape]) -> Iterator[str]:
    for colour, group in groupby(shapes, lambda shape: isinstance(shape, Box) and shape.colour):
        boxes = list(group)
        if colour is False:
            yield from map(_shape, boxes)
        else:  # boxes that follow one another take much less as one path
            places = "".join(_outline(box) for box in boxes if isinstance(box, Box))
            yield f'<path fill="{colour}" d="{places}"/>'


def _outline(box: Box) -> str:
    width = f"{box.width:.1f}"
    return f"M{box.x:.1f} {box.y:g}h{width}v{box.height:g}h-{width}z"


def _shape(shape: Shape) -> str:
    match shape:
        case Words():
            bold = ' font-weight="600"' if shape.bold else ""
            return (
                f'<text x="{shape.x:.1f}" y="{shape.y:g}" font-size="{shape.size}"{bold} '
                f'text-anchor="{shape.anchor}" fill="{shape.colour}">{escape(shape.text)}</text>'
            )
        case Line():
            dashes = ' stroke-dasharray="4 3"' if shape.dashed else ""
            return (
                f'<path d="M{shape.x1:.1f} {shape.y1:g}L{shape.x2:.1f} {shape.y2:g}" '
                f'stroke="{shape.colour}"{dashes}/>'
            )
        case Area():
            places = "L".join(f"{x:.1f} {y:.1f}" for x, y in shape.points)
            return f'<path d="M{places}z" fill="{shape.colour}" stroke="{shape.edge}"/>'
        case Box():
            return f'<path fill="{shape.colour}" d="{_outline(shape)}"/>'
