"""Draws what was resident when."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from llm_router_mw.simulator.canvas import Area, Box, Canvas, Line, Shape, Words
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.residence import Span
from llm_router_mw.simulator.trace import ModelFacts
from llm_router_mw.units import GIB

_LOOKS = {
    "loaded": ("#3b73b9", "resident"),
    "asleep": ("#a9c7e8", "asleep"),
    "leaving": ("#9aa0a6", "stopping"),
    "loading": ("#e8862e", "loading"),
}
"""Colour and word of each, in the order in which they are painted over one another."""
_INK, _FAINT, _GRID, _STRIPE = "#24292f", "#6e7781", "#d8dee4", "#f6f8fa"
_USED, _USED_EDGE, _LIMIT = "#cfe6cf", "#5f9e66", "#c93c37"
_LEFT, _TOP, _WIDTH, _RIGHT = 210, 84, 940, 60
_ROW, _BAR, _MEMORY = 22, 12, 84
_MERGED_BELOW = 0.5
"""Pixels: what is closer is drawn as one."""
_LEAST_LOADING = 2.0
"""Pixels: each load can be seen."""
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
"""Seconds between two marks on the axis of time."""
_MARKS = 12

Bar = tuple[int, str, float, float]
"""Model, look, left and right in pixels."""


def draw(
    title: str, spans: Sequence[Span], models: Sequence[ModelFacts], machine: Machine, end: float
) -> Canvas:
    """Return the picture: a row for each model that was ever resident, and the memory in use."""
    shown = sorted(
        {span.model for span in spans}, key=lambda index: (-models[index].size_bytes, index)
    )
    scale = _WIDTH / max(end, 1e-9)
    memory_top = _TOP + _ROW * len(shown) + 26
    bottom = memory_top + _MEMORY
    shapes = (
        Words(_LEFT, 28, title, _INK, size=16, bold=True),
        *_legend(),
        *_stripes(len(shown)),
        *_axis(end, scale, bottom),
        *_labels(shown, models, spans),
        *_bars(spans, {model: place for place, model in enumerate(shown)}, scale),
        *_memory(spans, models, machine.capacity_bytes, end, scale, memory_top),
    )
    return Canvas(_LEFT + _WIDTH + _RIGHT, bottom + 50, shapes)


def _legend() -> Iterator[Shape]:
    for place, (colour, word) in enumerate(_LOOKS.values()):
        x = _LEFT + 96 * place
        yield Box(x, 44, 14, _BAR, colour)
        yield Words(x + 20, 55, word, _INK)


def _stripes(rows: int) -> Iterator[Shape]:
    for place in range(0, rows, 2):
        yield Box(_LEFT, _TOP + place * _ROW, _WIDTH, _ROW, _STRIPE)


def _labels(
    shown: Sequence[int], models: Sequence[ModelFacts], spans: Sequence[Span]
) -> Iterator[Shape]:
    loads = Counter(span.model for span in spans if span.look == "loading")
    if shown:
        yield Words(_LEFT - 12, _TOP - 8, "GiB", _FAINT, size=11, anchor="end")
        yield Words(_LEFT + _WIDTH + 12, _TOP - 8, "loads", _FAINT, size=11)
    for place, index in enumerate(shown):
        facts = models[index]
        y = _TOP + place * _ROW + 15
        yield Words(_LEFT - 58, y, facts.model, _INK, anchor="end")
        yield Words(_LEFT - 12, y, f"{facts.size_bytes / GIB:.1f}", _FAINT, anchor="end")
        yield Words(_LEFT + _WIDTH + 12, y, str(loads[index]), _FAINT)


def _axis(end: float, scale: float, bottom: int) -> Iterator[Shape]:
    step = next((each for each in _STEPS if end / each <= _MARKS), _STEPS[-1])
    for mark in range(int(end // step) + 1):
        x = _LEFT + mark * step * scale
        yield Line(x, _TOP, x, bottom + 5, _GRID)
        yield Words(x, bottom + 20, _clock(mark * step), _FAINT, size=11, anchor="middle")
    word = "time, h:min:s" if end >= 3600 else "time, min:s"
    yield Words(_LEFT + _WIDTH / 2, bottom + 38, word, _FAINT, size=11, anchor="middle")


def _clock(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


def _bars(spans: Sequence[Span], rows: dict[int, int], scale: float) -> Iterator[Shape]:
    bars: dict[str, list[Shape]] = {look: [] for look in _LOOKS}
    for model, look, left, right in _merged(spans, scale):
        least = _LEAST_LOADING if look == "loading" else _MERGED_BELOW
        y = _TOP + rows[model] * _ROW + (_ROW - _BAR) // 2
        width = max(right - left, least)
        bars[look].append(Box(_LEFT + min(left, _WIDTH - width), y, width, _BAR, _LOOKS[look][0]))
    for look in _LOOKS:
        yield from bars[look]


def _merged(spans: Sequence[Span], scale: float) -> Iterator[Bar]:
    """Return the bars; what follows one of the same look too closely to be told apart is in it."""
    last: dict[str, Bar] = {}
    for span in sorted(spans, key=lambda span: (span.model, span.begins)):
        left, right = span.begins * scale, span.ends * scale
        before = last.get(span.look)
        if before is not None and before[0] == span.model and left - before[3] < _MERGED_BELOW:
            last[span.look] = (*before[:3], right)
            continue
        if before is not None:
            yield before
        last[span.look] = (span.model, span.look, left, right)
    yield from last.values()


def _memory(
    spans: Sequence[Span],
    models: Sequence[ModelFacts],
    capacity: int,
    end: float,
    scale: float,
    top: int,
) -> Iterator[Shape]:
    """Return the area of the bytes in use under the line of what there is."""
    # Changes that are closer than can be seen are one.
    steps: defaultdict[int, int] = defaultdict(int)
    for span in spans:
        facts = models[span.model]
        size = facts.overhead_bytes if span.look == "asleep" else facts.size_bytes
        steps[round(span.begins * scale / _MERGED_BELOW)] += size
        steps[round(span.ends * scale / _MERGED_BELOW)] -= size
    used, height = 0, float(top + _MEMORY)
    points = [(float(_LEFT), height)]
    for place in sorted(steps):
        x = _LEFT + place * _MERGED_BELOW
        points.append((x, height))
        used += steps[place]
        height = top + _MEMORY * (1 - used / max(capacity, 1))
        points.append((x, height))
    points.append((_LEFT + end * scale, float(top + _MEMORY)))
    yield Area(tuple(points), _USED, _USED_EDGE)
    yield Line(_LEFT, top, _LEFT + _WIDTH, top, _LIMIT, dashed=True)
    yield Words(_LEFT - 12, top + 4, f"{capacity / GIB:.0f} GiB", _LIMIT, anchor="end")
    yield Words(_LEFT - 12, top + _MEMORY // 2 + 4, "memory in use", _INK, anchor="end")
    yield Words(_LEFT - 12, top + _MEMORY + 4, "0", _FAINT, anchor="end")
