"""``llm-router-mw simulate``: what the scheduler would do, before it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

import click
import msgspec

from llm_router_mw.cli.device_list import parse_devices
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.router.registry import load_registry
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.simulator.event_trace import read_event_trace
from llm_router_mw.simulator.generate import KINDS, generate
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.picture import draw
from llm_router_mw.simulator.png import check_png, to_png
from llm_router_mw.simulator.replay import replay, told
from llm_router_mw.simulator.report import Report, comparison, summary, table
from llm_router_mw.simulator.residence import Residence
from llm_router_mw.simulator.run import Settings, simulate
from llm_router_mw.simulator.svg import to_svg
from llm_router_mw.simulator.trace import Trace, read_trace, trace_lines
from llm_router_mw.simulator.world import Order
from llm_router_mw.types import Step
from llm_router_mw.units import MIB

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command("simulate")
@click.argument("trace", type=_FILE, required=False)
@click.option(
    "--generate",
    "kind",
    type=click.Choice(KINDS),
    help="Make a trace instead of reading one.",
)
@click.option(
    "--requests", type=click.IntRange(1), default=2000, show_default=True, help="To make."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of what is made.")
@click.option("--models", type=click.IntRange(2, 10_000), help="To make, for all kinds but agent.")
@click.option("--write-trace", type=_NEW_FILE, help="Write the made trace there and do no more.")
@click.option(
    "--events", "event_file", type=_FILE, help="Replay recorded events and print what is decided."
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=["lru"],
    show_default=True,
    help="Name of a registered eviction policy; repeatable, to compare some.",
)
@click.option(
    "--devices",
    default="cuda:120GiB",
    show_default=True,
    metavar="KIND:SIZE,…",
    help="Memory of the machine, as cuda:24GiB,cuda:24GiB,host:64GiB. A model goes on one GPU, or "
    "if none is large enough on all of them; without a GPU on the host.",
)
@click.option(
    "--models-memory-margin",
    "margin_mib",
    type=click.IntRange(0, 2**40),
    default=1024,
    show_default=True,
    metavar="MiB",
    help="What must stay free on each device.",
)
@click.option(
    "--models-max",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="Models loaded at once at most; 0: as memory allows.",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds of other work that a request waits for before busy models drain.",
)
@click.option(
    "--min-resident",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Seconds that a model stays at least.",
)
@click.option(
    "--sleep-idle-seconds",
    type=click.FloatRange(-1),
    default=-1.0,
    show_default=True,
    help="After so long an idle model sleeps; -1: never.",
)
@click.option(
    "--evict-to",
    type=click.Choice(get_args(Step)),
    default="stop",
    show_default=True,
    help="How far down a victim goes if that is enough.",
)
@click.option(
    "--order",
    type=click.Choice(get_args(Order)),
    default="fair",
    show_default=True,
    help="fifo: strictly one after the other, to compare with.",
)
@click.option(
    "--closed-loop", is_flag=True, help="Each key waits for its answer before it asks again."
)
@click.option(
    "--picture",
    type=_NEW_FILE,
    help="Draw what was resident when, as SVG or, by the file's name, as PNG.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def simulate_command(
    *,
    trace: Path | None,
    kind: str | None,
    requests: int,
    seed: int,
    models: int | None,
    write_trace: Path | None,
    event_file: Path | None,
    policies: tuple[str, ...],
    devices: str,
    margin_mib: int,
    picture: Path | None,
    as_json: bool,
    **rules: Any,
) -> None:
    """Play the requests of TRACE on a clock that jumps.

    TRACE is JSON lines: one for each model (model, size_bytes, load_seconds), then one for each
    request (time, model, tokens, priority, key). The last line printed sums it up.
    """
    if sum(given is not None for given in (trace, kind, event_file)) != 1:
        raise click.UsageError("name a TRACE, or give --generate, or --events")
    machine = Machine(
        {device.pool: device.total_bytes for device in parse_devices(devices)}, margin_mib * MIB
    )
    try:
        if event_file is not None:
            _replay(event_file)
        elif write_trace is not None:
            if kind is None:
                raise click.UsageError("--write-trace needs --generate")
            _write(generate(kind, requests, seed, models), write_trace)
        else:
            if picture is not None and len(policies) > 1:
                raise click.UsageError("--picture shows one policy; name only one")
            if picture is not None and _is_png(picture):
                check_png()
            reports = []
            for chosen in [_policy(name) for name in policies]:
                with _opened(trace, kind, requests, seed, models) as played:
                    reports.append(_play(played, _settings(machine, chosen, rules), picture))
            _show(reports, as_json=as_json)
    except LLMRouterError as error:
        raise click.ClickException(error.message) from error


def _policy(name: str) -> EvictionPolicy:
    return load_registry(RouterConfig()).policy(name)


def _settings(machine: Machine, policy: EvictionPolicy, rules: dict[str, Any]) -> Settings:
    return Settings(
        machine=machine,
        policy=policy,
        limits=Limits(
            models_max=rules["models_max"],
            max_queue=0,
            max_wait_seconds=rules["max_wait"],
            min_resident_seconds=rules["min_resident"],
        ),
        order=cast("Order", rules["order"]),
        closed_loop=rules["closed_loop"],
        sleep_idle_seconds=rules["sleep_idle_seconds"],
        evict_to=cast("Step", rules["evict_to"]),
    )


@contextmanager
def _opened(
    file: Path | None, kind: str | None, requests: int, seed: int, models: int | None
) -> Iterator[Trace]:
    """Yield the trace that was asked for; its file stays open as long."""
    if file is None:
        assert kind is not None
        yield generate(kind, requests, seed, models)
    else:
        with file.open("rb") as lines:
            yield read_trace(lines)


def _play(trace: Trace, settings: Settings, picture: Path | None) -> Report:
    residence = None if picture is None else Residence()
    report = simulate(trace, settings, residence=residence)
    if picture is not None and residence is not None:
        title = f"{report.policy}: {report.loads} loads, {report.stalled_seconds:.0f} s stalled"
        facts = list(trace.models.values())
        drawn = draw(title, residence.spans, facts, settings.machine, report.makespan_seconds)
        picture.write_bytes(to_png(drawn) if _is_png(picture) else to_svg(drawn).encode())
    return report


def _is_png(picture: Path) -> bool:
    return picture.suffix.lower() == ".png"


def _show(reports: Sequence[Report], *, as_json: bool) -> None:
    """Print the figures, the summaries last: on stderr where stdout is for a program."""
    if as_json:
        figures = reports[0] if len(reports) == 1 else reports
        click.echo(msgspec.json.format(msgspec.json.encode(figures)).decode())
    else:
        click.echo(table(reports[0]) if len(reports) == 1 else comparison(reports))
    for report in reports:
        click.echo(summary(report), err=as_json)


def _write(trace: Trace, file: Path) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for line in trace_lines(trace):
            lines.write(line + "\n")


def _replay(file: Path) -> None:
    with file.open(encoding="utf-8") as lines:
        setup, recorded = read_event_trace(lines)
        for step in replay(setup, _policy(setup.policy), recorded):
            click.echo(told(*step))
