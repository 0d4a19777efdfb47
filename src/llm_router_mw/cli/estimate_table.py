"""Draws an outlook: a table with a bar for each device, and what would fit."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_router_mw.cli.sizes import size_text
from llm_router_mw.memory.outlook import DeviceOutlook, Outlook, ProjectorOutlook

_BAR_WIDTH = 24
_WIDTH, _NARROW_WIDTH = 124, 96
"""Columns with the bars, and without them."""
_PARTS = {
    "weights": "blue",
    "context": "green",
    "compute": "yellow",
    "overhead": "magenta",
}
"""Parts of a cost, and their colours."""


def print_estimate(outlook: Outlook, title: str, file: TextIO) -> None:
    """Print *outlook*; coloured on a terminal."""
    console = Console(file=file, highlight=False)
    # Where nobody looks, or not at enough columns, numbers must not be cut off.
    narrow = console.is_terminal and console.width < _WIDTH
    console.width = max(console.width, _NARROW_WIDTH if narrow else _WIDTH)
    console.print(
        f"{title}: {outlook.architecture}, {outlook.n_ctx} tokens of context"
        + ("" if outlook.confidence != "low" else " — a rough estimate"),
        markup=False,
    )
    console.print(_table(outlook, with_bars=not narrow))
    if outlook.projector is not None:
        console.print(_projector(outlook.projector), markup=False)
    console.print(_longest(outlook), markup=False)
    if outlook.confidence == "low":
        for note in outlook.notes:
            console.print(f"note: {note}", markup=False)


def _table(outlook: Outlook, *, with_bars: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("device", no_wrap=True)
    for part, colour in _PARTS.items():
        table.add_column(part, justify="right", header_style=colour, no_wrap=True)
    for heading in ("total", "at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    if with_bars:
        table.add_column("", no_wrap=True)
    table.add_column("free after margin", no_wrap=True)
    for device in outlook.devices:
        costs = [getattr(device.expected, f"{part}_bytes") for part in _PARTS]
        table.add_row(
            Text(device.id),
            *map(size_text, costs),
            size_text(device.expected_bytes),
            size_text(device.upper_bytes),
            *([_bar(device, costs)] if with_bars else []),
            _verdict(device),
        )
    return table


def _bar(device: DeviceOutlook, costs: list[int]) -> Text:
    """Return the device's free memory as a bar; what does not fit any more is cut off."""
    whole = max(device.free_bytes, 1)
    bar, end, drawn = Text(), 0, 0
    for n_bytes, colour in zip(costs, _PARTS.values(), strict=True):
        end += n_bytes
        cells = min(_BAR_WIDTH, round(end * _BAR_WIDTH / whole))
        bar.append("█" * max(0, cells - drawn), style=colour)
        drawn = max(drawn, cells)
    bar.append("░" * (_BAR_WIDTH - drawn), style="dim")
    return bar


def _verdict(device: DeviceOutlook) -> Text:
    if device.free_after_bytes < 0:
        return Text(f"does not fit: {size_text(-device.free_after_bytes)} short", style="bold red")
    return Text(size_text(device.free_after_bytes), style="green")


def _projector(projector: ProjectorOutlook) -> str:
    return (
        f"with the projector ({projector.projector}) on {projector.device}: "
        f"weights {size_text(projector.weights_bytes)}, "
        f"compute {size_text(projector.compute_bytes)}, "
        f"at most {size_text(projector.upper_bytes)}"
    )


def _longest(outlook: Outlook) -> str:
    longest, quantised = outlook.largest_n_ctx, outlook.largest_n_ctx_quantised
    hint = f" (with -ctk q8_0 -ctv q8_0: {quantised})" if quantised > longest else ""
    if not longest:
        return "no context fits: it needs fewer layers on the GPU (-ngl) or more memory" + hint
    if longest >= outlook.n_ctx_train // 256 * 256:
        return f"largest context that fits: {longest}, all that the model was trained with"
    return f"largest context that fits: {longest}{hint}"
