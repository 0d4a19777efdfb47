"""Draws what was resident when, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.residence import Span
from llm_router_mw.simulator.trace import ModelFacts

_LOOKS = {
    "loading": ("#f2a33a", "loading"),
    "loaded": ("#2f6fb0", "resident"),
    "asleep": ("#b9cfe4", "asleep"),
    "leaving": ("#9a9a9a", "stopping"),
}
_LEFT, _TOP, _WIDTH, _ROW, _BAR, _MEMORY = 190, 58, 940, 16, 11, 70
_GIB = 1 << 30
_MERGED_BELOW = 0.3
"""Pixels: what is closer is drawn as one."""
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
"""Seconds between two marks on the axis of time."""


def draw(
    title: str, spans: Sequence[Span], models: Sequence[ModelFacts], machine: Machine, end: float
) -> str:
    """Return the picture: a row for each model that was ever resident, and the memory in use."""
    shown = sorted(
        {span.model for span in spans}, key=lambda index: (-models[index].size_bytes, index)
    )
    rows = {model: place for place, model in enumerate(shown)}
    scale = _WIDTH / max(end, 1e-9)
    bottom = _TOP + _ROW * len(rows)
    height = bottom + 22 + _MEMORY + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 20}" '
        f'height="{height}" viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{_LEFT}" y="18" '
        f'font-size="13" font-weight="bold">{escape(title)}</text>',
        *_legend(),
        *_labels(shown, models),
        *_axis(end, scale, bottom + 22 + _MEMORY),
        *_bars(spans, rows, scale),
        *_memory(spans, models, machine.capacity_bytes, end, scale, bottom + 22),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> Iterator[str]:
    for place, (colour, words) in enumerate(_LOOKS.values()):
        x = _LEFT + 90 * place
        yield (
            f'<rect x="{x}" y="28" width="11" height="11" fill="{colour}"/>'
            f'<text x="{x + 16}" y="38">{words}</text>'
        )


def _labels(shown: Sequence[int], models: Sequence[ModelFacts]) -> Iterator[str]:
    for place, index in enumerate(shown):
        facts = models[index]
        y = _TOP + place * _ROW + _BAR - 1
        yield (
            f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{escape(facts.model)} '
            f'<tspan fill="#777">{facts.size_bytes / _GIB:.1f} GiB</tspan></text>'
        )


def _axis(end: float, scale: float, bottom: int) -> Iterator[str]:
    step = next((each for each in _STEPS if end / each <= 12), _STEPS[-1])
    for mark in range(int(end // step) + 1):
        x = _LEFT + mark * step * scale
        yield (
            f'<path d="M{x:.1f} {_TOP - 6}V{bottom + 4}" stroke="#ddd"/>'
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">'
            f"{_clock(mark * step)}</text>"
        )


def _clock(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


def _bars(spans: Sequence[Span], rows: dict[int, int], scale: float) -> Iterator[str]:
    paths: dict[str, list[str]] = {look: [] for look in _LOOKS}
    for model, look, begins, ends in _merged(spans, scale):
        y = _TOP + rows[model] * _ROW
        width = max(ends - begins, _MERGED_BELOW)
        paths[look].append(f"M{_LEFT + begins:.1f} {y}h{width:.1f}v{_BAR}h{-width:.1f}z")
    for look, (colour, _) in _LOOKS.items():
        if paths[look]:
            yield f'<path fill="{colour}" d="{"".join(paths[look])}"/>'


def _merged(spans: Sequence[Span], scale: float) -> Iterator[tuple[int, str, float, float]]:
    """Return model, look, left and right of the bars, in pixels."""
    last: tuple[int, str, float, float] | None = None
    for span in sorted(spans, key=lambda span: (span.model, span.begins)):
        left, right = span.begins * scale, span.ends * scale
        if last is not None and last[0] == span.model and _is_one(last, span.look, left, right):
            last = (*last[:3], right)
            continue
        if last is not None:
            yield last
        last = (span.model, span.look, left, right)
    if last is not None:
        yield last


def _is_one(bar: tuple[int, str, float, float], look: str, left: float, right: float) -> bool:
    """Whether what follows *bar* is too small to be seen, or cannot be told from it."""
    ended = bar[3]
    return right - ended < _MERGED_BELOW or (look == bar[1] and left - ended < _MERGED_BELOW)


def _memory(
    spans: Sequence[Span],
    models: Sequence[ModelFacts],
    capacity: int,
    end: float,
    scale: float,
    top: int,
) -> Iterator[str]:
    """Return the area of the bytes in use under the line of what there is."""
    steps: dict[float, int] = {0.0: 0, end: 0}
    for span in spans:
        facts = models[span.model]
        size = facts.overhead_bytes if span.look == "asleep" else facts.size_bytes
        steps[span.begins] = steps.get(span.begins, 0) + size
        steps[span.ends] = steps.get(span.ends, 0) - size
    used, drawn_to = 0, -1.0
    line = [f"M{_LEFT} {top + _MEMORY}"]
    for at in sorted(steps):
        used += steps[at]
        if at * scale - drawn_to >= _MERGED_BELOW:
            drawn_to = at * scale
            y = top + _MEMORY * (1 - used / max(capacity, 1))
            line.append(f"H{_LEFT + drawn_to:.1f}V{y:.1f}")
    line.append(f"H{_LEFT + end * scale:.1f}V{top + _MEMORY}z")
    yield (
        f'<text x="{_LEFT - 8}" y="{top + 10}" text-anchor="end">memory '
        f'<tspan fill="#777">{capacity / _GIB:.1f} GiB</tspan></text>'
        f'<path d="{"".join(line)}" fill="#cfe3c7" stroke="#6a9a57" stroke-width="0.7"/>'
        f'<path d="M{_LEFT} {top}h{_WIDTH}" stroke="#b33" stroke-dasharray="4 3"/>'
    )
