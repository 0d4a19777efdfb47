"""``llm-router-mw devices``: the memory that there is for models on this machine."""

from __future__ import annotations

import sys
from typing import TextIO

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_router_mw.cli import log
from llm_router_mw.cli.memory_flags import margin_flag
from llm_router_mw.cli.sizes import size_text
from llm_router_mw.config import parse_config
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.memory.inventory import Inventory, Look
from llm_router_mw.router.registry import load_registry
from llm_router_mw.types import Device, DeviceKind

_BAR_WIDTH = 24
_WIDTH, _NARROW_WIDTH = 144, 116
"""Columns with the bars, and without them."""
_UNKNOWN = "?"


class DeviceRow(Struct, frozen=True, kw_only=True):
    """One device, and what a router could use of it."""

    id: str
    index: int | None
    """Number among the GPUs, as ``main_gpu`` counts them."""
    pool: str
    kind: DeviceKind
    name: str
    total_bytes: int
    """0 is unknown."""
    free_bytes: int
    others_bytes: int
    """Of the pool: what programs hold."""
    margin_bytes: int
    available_bytes: int
    """Of the pool: what models may take."""
    pci_id: str
    backend_name: str
    note: str


@click.command()
@margin_flag
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def devices(*, models_memory_margin: dict[str, int], as_json: bool) -> None:
    """Show the memory for models: the host's and that of GPUs."""
    log.configure()
    try:
        config = parse_config(models_memory_margin=models_memory_margin)
        probes = load_registry(config).probes
    except LLMRouterError as error:
        raise click.ClickException(error.message) from error
    look = Inventory(tuple(probes.values()), config.models_memory_margin).look()
    gpus = [device for device in look.devices if device.kind != "host"]
    rows = [
        _row(device, gpus.index(device) if device in gpus else None, look)
        for device in look.devices
    ]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        print_devices(rows, sys.stdout)


def _row(device: Device, index: int | None, look: Look) -> DeviceRow:
    reading = look.readings[device.pool]
    return DeviceRow(
        id=device.id,
        index=index,
        pool=device.pool,
        kind=device.kind,
        name=device.name,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        others_bytes=reading.others_bytes,
        margin_bytes=reading.margin_bytes,
        available_bytes=reading.capacity_bytes,
        pci_id=device.pci_id,
        backend_name=device.backend_name,
        note=device.note,
    )


def print_devices(rows: list[DeviceRow], file: TextIO) -> None:
    """Print *rows* as a table; coloured on a terminal."""
    console = Console(file=file, highlight=False)
    # Where nobody looks, or not at enough columns, numbers must not be cut off.
    narrow = console.is_terminal and console.width < _WIDTH
    console.width = max(console.width, _NARROW_WIDTH if narrow else _WIDTH)
    console.print(_table(rows, with_bars=not narrow))
    for row in rows:
        about = [row.id, row.pci_id, row.backend_name, row.note]
        if row.index is not None or row.note:
            console.print(f"{_label(row)}: {', '.join(filter(None, about))}", markup=False)


def _table(rows: list[DeviceRow], *, with_bars: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("device", "name", "kind", "pool"):
        table.add_column(heading, no_wrap=True)
    for heading in ("total", "used by others", "margin", "free for models"):
        table.add_column(heading, justify="right", no_wrap=True)
    if with_bars:
        table.add_column("", no_wrap=True)
    for row in rows:
        sizes = (row.total_bytes, row.others_bytes, row.margin_bytes, row.available_bytes)
        table.add_row(
            _label(row),
            Text(row.name),
            row.kind,
            Text("own" if row.pool == row.id else row.pool),
            *(size_text(size) if row.total_bytes else _UNKNOWN for size in sizes),
            *([_bar(row)] if with_bars else []),
        )
    return table


def _label(row: DeviceRow) -> str:
    return row.id if row.index is None else f"GPU {row.index}"


def _bar(row: DeviceRow) -> Text:
    """Return the device's memory as a bar: what others hold, what models may take, the margin."""
    if not row.total_bytes:
        return Text(_UNKNOWN * _BAR_WIDTH, style="dim")
    others = round(row.others_bytes * _BAR_WIDTH / row.total_bytes)
    available = round(row.available_bytes * _BAR_WIDTH / row.total_bytes)
    bar = Text("█" * min(others, _BAR_WIDTH), style="red")
    bar.append("█" * min(available, _BAR_WIDTH - len(bar)), style="green")
    bar.append("░" * (_BAR_WIDTH - len(bar)), style="dim")
    return bar
