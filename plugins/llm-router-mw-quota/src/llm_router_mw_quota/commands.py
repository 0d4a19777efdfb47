"""``llm-router-mw quota``: what was used, and by whom."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from llm_router_mw_quota.account import Account, Entry
from llm_router_mw_quota.options import Options, default_path, owner_of

_SHOWN = 12
"""Characters of an owner that has no name."""
_database = click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    default=default_path,
    help="File of the account.",
)


@click.group()
def quota() -> None:
    """Show what was used of the models, and by whom."""


@quota.command()
@_database
@click.option("--since", default="", metavar="DAY", help="First day, as 2026-01-31.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(*, database: Path, since: str, as_json: bool) -> None:
    """Print the account."""
    if not database.exists():
        raise click.ClickException(
            f"there is no account {str(database)!r} yet; name another with --database"
        )
    try:
        entries = Account(database, Options().keep_days).entries(since)
    except sqlite3.Error as error:
        raise click.ClickException(f"{str(database)!r} cannot be read: {error}") from error
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(entries)).decode())
    else:
        _print(entries)


@quota.command()
@_database
@click.argument("owner")
def reset(*, database: Path, owner: str) -> None:
    """Give OWNER (as printed by `report --json`) a new budget for today."""
    today = datetime.now(UTC).date().isoformat()
    if not Account(database, Options().keep_days).reset(owner, today):
        raise click.ClickException(f"{owner!r} has used nothing today")


@quota.command("owner")
@click.argument("key")
def show_owner(*, key: str) -> None:
    """Print what the account calls the users of the API key KEY."""
    click.echo(owner_of(key))


def _print(entries: list[Entry]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("day", "owner", "model"):
        table.add_column(heading)
    for heading in ("requests", "prompt", "generated"):
        table.add_column(heading, justify="right")
    for each in entries:
        counts = (each.requests, each.prompt_tokens, each.completion_tokens)
        table.add_row(each.day, each.owner[:_SHOWN], each.model, *map(str, counts))
    Console(highlight=False).print(table)
