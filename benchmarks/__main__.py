"""``python -m benchmarks``"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from benchmarks.comparison import Comparison
from benchmarks.decisions import measure_decisions, measure_run
from benchmarks.doors import measure_doors
from benchmarks.machine import describe_machine, usable_cores
from benchmarks.memory import memory
from benchmarks.models.store import ModelStore
from benchmarks.outcome import keep_outcomes
from benchmarks.peer import PeerError, find_or_build, peer_version
from benchmarks.scenario import Scenario
from benchmarks.scenarios.suite import engine_scenarios
from benchmarks.servers import PeerSide, Side
from benchmarks.shared import measure_shared, report
from benchmarks.table import around_results, markdown, terminal_table, write_into
from llm_router_mw.config import RouterConfig
from llm_router_mw.router.registry import load_registry

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE_COLUMNS = 180
_FILE = click.Path(dir_okay=False, path_type=Path)
_LAYOUTS = {"unified": (True,), "split": (False,), "both": (True, False)}
_LAYOUT = click.Choice(list(_LAYOUTS))
_DOCUMENT = click.Path(exists=True, dir_okay=False, writable=True, path_type=Path)


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llm-router-mw" / "benchmarks"


def _checked(context: click.Context, option: click.Parameter, document: Path | None) -> Path | None:
    """Refuse a document without room for the table now, not when all has been measured."""
    if document is not None:
        try:
            around_results(document)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return document


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Measure this package against llama-server."""


@main.command()
@click.option("--only", multiple=True, metavar="NAME", help="Scenario to run; repeatable.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Rounds per scenario.")
@click.option("--quick", is_flag=True, help="Short runs, to see that all works.")
@click.option("--tiny", is_flag=True, help="Tiny models, to see it even sooner.")
@click.option("--threads", type=click.IntRange(1), default=usable_cores(), help="Per server.")
@click.option("--llama-server", type=_FILE, help="The program to compare with.")
@click.option("--layout", type=_LAYOUT, default="unified", help="Of our context's memory.")
@click.option("--peer-layout", type=_LAYOUT, default="both", help="The same of llama-server.")
@click.option("--no-peer", is_flag=True, help="Measure ours only.")
@click.option("--cache-dir", type=_DIRECTORY, default=_default_cache(), help="For what is made.")
@click.option("--results", type=_FILE, help="Keep the results there, beside earlier ones.")
@click.option("--write", type=_DOCUMENT, callback=_checked, help="Document for the table.")
def engine(
    *,
    only: tuple[str, ...],
    rounds: int,
    quick: bool,
    tiny: bool,
    threads: int,
    llama_server: Path | None,
    layout: str,
    peer_layout: str,
    no_peer: bool,
    cache_dir: Path,
    results: Path | None,
    write: Path | None,
) -> None:
    """Throughput, first tokens, sharing, embeddings and more, over HTTP."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_COLUMNS)
    scenarios = _chosen(engine_scenarios(quick=quick), only)
    sides: list[Side] = [Side(threads, unified=unified) for unified in _LAYOUTS[layout]]
    peer = None
    if not no_peer:
        try:
            binary = find_or_build(llama_server, cache_dir)
        except PeerError as error:
            raise click.ClickException(str(error)) from error
        peer = peer_version(binary)
        sides += [PeerSide(threads, binary, unified=unified) for unified in _LAYOUTS[peer_layout]]
    store = ModelStore(cache_dir / "models", tiny=tiny)
    outcomes = []
    for scenario in scenarios:
        model = store.path(scenario.settings.model_kind)
        outcome = Comparison(scenario, sides, model, console.print).run(rounds)
        outcomes.append(outcome)
        shown = keep_outcomes(results, [outcome]) if results else outcomes
    console.print(terminal_table(shown))
    if write:
        day = f"{datetime.now(UTC):%-d %B %Y}, {threads} threads per server"
        write_into(write, markdown(shown, [day, *describe_machine(peer)]))


@main.command()
@click.option("--policy", default="cost-aware", help="Eviction policy that decides.")
@click.option("--decisions", type=click.IntRange(10), default=20_000, help="To take time of.")
@click.option("--requests", type=click.IntRange(1), default=1_000_000, help="Of the long run.")
def scheduler(*, policy: str, decisions: int, requests: int) -> None:
    """How long a decision takes, and a million requests through the simulator."""
    chosen = load_registry(RouterConfig()).policy(policy)
    single = measure_decisions(chosen, decisions)
    click.echo(
        f"{policy}: {single.count} decisions with {single.waiting} tickets waiting: "
        f"p50 {single.p50_seconds * 1e6:.0f} µs, p99 {single.p99_seconds * 1e6:.0f} µs, "
        f"longest {single.longest_seconds * 1e6:.0f} µs"
    )
    run = measure_run(chosen, requests)
    click.echo(
        f"{requests} requests, {run.report.loads} loads: {run.seconds:.1f} s "
        f"({run.seconds / requests * 1e6:.1f} µs each), {run.peak_mib} MiB at most"
    )


@main.command()
@click.option("--requests", type=click.IntRange(1), default=20_000, help="In each round.")
def doors(*, requests: int) -> None:
    """What a request of the host app's own pays for passing the middleware."""
    bare, *others = measure_doors(requests)
    click.echo(f"{bare.name}: {bare.seconds * 1e6:.2f} µs a request")
    for door in others:
        click.echo(f"{door.name} adds {(door.seconds - bare.seconds) * 1e6:.2f} µs")


@main.command()
@click.option("--requests", type=click.IntRange(1), default=300, help="For a first token, on each.")
@click.option("--rounds", type=click.IntRange(1), default=7, help="Of many streams at once.")
@click.option("--tokens", type=click.IntRange(1), default=200, help="Of each of the streams.")
@click.option("--cache-dir", type=_DIRECTORY, default=_default_cache(), help="For what is made.")
def shared(*, requests: int, rounds: int, tokens: int, cache_dir: Path) -> None:
    """What going through the shared host adds, with a model that takes next to no time."""
    model = ModelStore(cache_dir / "models", tiny=True).path("dense")
    modes = measure_shared(model, requests=requests, rounds=rounds, tokens=tokens)
    for line in report(*modes):
        click.echo(line)


main.add_command(memory)


def _chosen(scenarios: list[Scenario], names: tuple[str, ...]) -> list[Scenario]:
    known = {scenario.name: scenario for scenario in scenarios}
    unknown = set(names) - set(known)
    if unknown:
        raise click.UsageError(
            f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(known)}"
        )
    return [scenario for name, scenario in known.items() if not names or name in names]


if __name__ == "__main__":
    main()
