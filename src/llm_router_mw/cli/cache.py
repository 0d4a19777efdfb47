"""``llm-router-mw cache``: conversations that were saved in a directory."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from llm_router_mw.cli import log
from llm_router_mw.cli.sizes import size_text
from llm_router_mw.kv_store import saved_in
from llm_router_mw.kv_store.folder import remove
from llm_router_mw.types import Snapshot

_directory = click.option(
    "--kv-cache-dir",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="The router's option kv_cache_dir.",
)
_model = click.option("--model", help="Only those of this model: its file, or the name of that.")


@click.group()
def cache() -> None:
    """Show or remove conversations that were saved in a directory.

    What a router keeps in memory is shown, and removed, by itself: GET /models/cache and
    POST /models/cache/purge.
    """
    log.configure()


@cache.command("list")
@_directory
@_model
def list_snapshots(*, folder: Path, model: str | None) -> None:
    """Show what is saved: of which model, how much, used when."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("model", "tokens", "size", "last used"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for snapshot, used_at in _found(folder, model):
        used = datetime.fromtimestamp(used_at).isoformat(" ", "seconds")
        row = (os.path.basename(snapshot.model_path), str(snapshot.n_tokens))
        table.add_row(*row, size_text(snapshot.size_bytes), used)
    Console(file=sys.stdout).print(table)


@cache.command()
@_directory
@_model
@click.option("--older-than", "days", type=float, help="Only those not used for so many days.")
def purge(*, folder: Path, model: str | None, days: float | None) -> None:
    """Remove what is saved; a router that uses it goes on without."""
    limit = float("inf") if days is None else time.time() - days * 86_400
    gone = [snapshot for snapshot, used_at in _found(folder, model) if used_at < limit]
    remove(snapshot.path for snapshot in gone)
    size = size_text(sum(snapshot.size_bytes for snapshot in gone))
    click.echo(f"removed {len(gone)} saved conversations, {size}")


def _found(folder: Path, model: str | None) -> list[tuple[Snapshot, float]]:
    return [
        (snapshot, used_at)
        for snapshot, used_at in saved_in(folder)
        if model is None or model in _names(snapshot)
    ]


def _names(snapshot: Snapshot) -> set[str]:
    path = Path(snapshot.model_path)
    return {str(path), path.name, path.stem}
