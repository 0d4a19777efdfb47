"""``llm-router-mw serve --download-only``: fetches what is missing, and says how that went."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

import anyio
import anyio.to_thread
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from llm_router_mw.catalog import Catalog
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.gguf import shards
from llm_router_mw.hub import Hub
from llm_router_mw.hub_reference import HubReference, reference_of
from llm_router_mw.router.registry import load_registry
from llm_router_mw.units import GIB

logger = logging.getLogger("llm_router_mw.cli")

_WIDTH = 120


class Outcome(Struct, frozen=True):
    """What became of one model."""

    state: str
    size_bytes: int = 0
    problem: str = ""


def download_all(config: RouterConfig, plugins: Iterable[object], out: TextIO) -> bool:
    """Fetch all models of the hub in the catalog; print a table; return whether all are here.

    *plugins* are used beside the installed ones: they may know of models, too.

    Raises:
        LLMRouterError: the catalog cannot be read.
    """
    registry = load_registry(config, plugins)
    catalog = Catalog(
        tuple(registry.sources.values()), tuple(registry.resolvers.values()), registry.faults
    )
    wanted = {
        model.id: reference
        for model in catalog.models()
        if (reference := reference_of(model.path)) is not None
    }
    hub = Hub(os.environ, token=config.hf_token, offline=config.offline)
    outcomes = anyio.run(_download, hub, wanted)
    _print(outcomes, out)
    return not any(outcome.problem for outcome in outcomes.values())


async def _download(hub: Hub, wanted: Mapping[str, HubReference]) -> dict[str, Outcome]:
    """Fetch one after the other: each has the whole line for itself."""
    return {name: await _one(hub, name, reference) for name, reference in wanted.items()}


async def _one(hub: Hub, name: str, reference: HubReference) -> Outcome:
    found = await anyio.to_thread.run_sync(hub.find, reference)
    if found is not None:
        return Outcome("was here", _size(found))
    logger.info("downloading %s", reference)
    try:
        with _progress() as progress:
            task = progress.add_task(name, total=None)

            def told(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            return Outcome("downloaded", _size(await hub.download(reference, told)))
    except LLMRouterError as error:
        return Outcome("failed", problem=error.message)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    return Progress(
        *columns, TransferSpeedColumn(), console=console, disable=not sys.stderr.isatty()
    )


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in shards(path))


def _print(outcomes: Mapping[str, Outcome], out: TextIO) -> None:
    console = Console(file=out, highlight=False)
    console.width = max(console.width, _WIDTH)
    if not outcomes:
        console.print("no model of the catalog is from the hub: there is nothing to download")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("model", "state", "size"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=True)
    for name, outcome in outcomes.items():
        style = "red" if outcome.problem else "green"
        size = f"{outcome.size_bytes / GIB:.1f} GiB" if outcome.size_bytes else ""
        table.add_row(Text(name), Text(outcome.state, style=style), size)
    console.print(table)
    for name, outcome in outcomes.items():
        if outcome.problem:
            console.print(f"{name}: {outcome.problem}", markup=False, soft_wrap=True)
