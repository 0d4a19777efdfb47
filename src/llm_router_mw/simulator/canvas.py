"""A picture as shapes, whatever it is drawn with. Places are pixels from the top left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text on the base line *y*."""

    x: float
    y: float
    text: str
    colour: str
    size: int = 12
    anchor: Anchor = "start"
    """Which part of the text is at *x*."""
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Area:
    """A filled shape with an edge."""

    points: tuple[tuple[float, float], ...]
    colour: str
    edge: str


Shape = Box | Words | Line | Area


@dataclass(frozen=True, slots=True)
class Canvas:
    """Shapes, those behind first, on a white ground."""

    width: int
    height: int
    shapes: tuple[Shape, ...]
