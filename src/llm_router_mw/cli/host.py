"""``llm-router-mw host``: the hosts of shared routers."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import click
import msgspec
from msgspec import Struct

from llm_router_mw.cli import log
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.shared.hosts import FoundHost, end_host, find_hosts
from llm_router_mw.types import InstanceState

_PATIENCE_SECONDS = 60.0


class HostRow(Struct, frozen=True, kw_only=True):
    """One host."""

    pid: int
    name: str
    """Its ``shared_name``; empty if its folder is its name."""
    folder: str
    state: str
    """``serving``; ``replaced``, by one with another configuration; or ``silent``."""
    loaded: tuple[str, ...] = ()
    """Models."""
    web_processes: tuple[int, ...] = ()
    """That are connected."""
    version: str = ""
    log: str


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def host(context: click.Context, /, *, as_json: bool) -> None:
    """Show the processes that hold your shared routers."""
    log.configure()
    if context.invoked_subcommand is not None:
        return
    rows = [_row(found) for found in _found()]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
    elif rows:
        click.echo("\n\n".join(map(_told, rows)))
    else:
        click.echo('no host runs; the first web process with mode="shared" starts one')


@host.command()
@click.argument("which", metavar="[NAME]", default="")
@click.option("--force", is_flag=True, help="Without letting it clean up.")
def stop(*, which: str, force: bool) -> None:
    """End a host; NAME is its name, its folder or its process. Answers under way are cut off.

    Web processes that are still there start a new one at once.
    """
    chosen = _chosen(_found(), which)
    card, pid = chosen.card, chosen.pid
    if pid is None:
        raise click.ClickException(
            f"process {card.pid} does not listen: it starts, ends or lives in another container; "
            "look again in a while"
        )
    if not anyio.run(lambda: end_host(card, pid, _PATIENCE_SECONDS, force=force)):
        raise click.ClickException(
            f"process {pid} has not ended within {_PATIENCE_SECONDS:g} s; see its log, "
            f"{str(card.address.log)!r}, or use --force"
        )
    click.echo(f"process {pid} has ended")


def _found() -> list[FoundHost]:
    try:
        return anyio.run(find_hosts)
    except LLMRouterError as error:
        raise click.ClickException(error.message) from error


def _chosen(hosts: Sequence[FoundHost], which: str) -> FoundHost:
    """Return the host that is called *which*; without a name the only one.

    Raises:
        click.ClickException: there is none, or there are several.
    """
    named = [host for host in hosts if which in ("", *_names(host))]
    if len(named) == 1:
        return named[0]
    if not hosts:
        raise click.ClickException("no host runs")
    known = ", ".join(f"{host.card.title} (process {host.card.pid})" for host in hosts)
    many = "several hosts are meant" if named else f"no host is called {which!r}"
    raise click.ClickException(f"{many}; name one of: {known}")


def _names(found: FoundHost) -> tuple[str, str, str]:
    return (found.card.name, found.card.folder, str(found.card.pid))


def _row(found: FoundHost) -> HostRow:
    card, status = found.card, found.status
    row = HostRow(
        pid=card.pid,
        name=card.name,
        folder=card.folder,
        state="silent",
        log=str(card.address.log),
    )
    if status is None:
        return row
    return msgspec.structs.replace(
        row,
        state="replaced" if status.draining else "serving",
        loaded=tuple(view.id for view in status.models if view.state is InstanceState.LOADED),
        web_processes=status.web_processes,
        version=status.version,
    )


def _told(row: HostRow) -> str:
    """Return lines about a host. Only the terminal breaks paths, so that they can be copied."""
    told = {"name": row.name, "directory": row.folder}
    if row.state != "silent":
        told["loaded"] = ", ".join(row.loaded) or "none"
        told["web processes"] = ", ".join(map(str, row.web_processes)) or "none"
    told["log"] = row.log
    lines = [f"  {what + ':':<14} {value}" for what, value in told.items() if value]
    return "\n".join([f"process {row.pid}: {row.state}", *lines])
