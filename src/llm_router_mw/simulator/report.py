"""The figures of one simulation."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from msgspec import Struct

from llm_router_mw.simulator.tally import THRASH_SECONDS, Tally


class Report(Struct, frozen=True, kw_only=True):
    """What came of playing a trace. Times are seconds of the simulated clock."""

    policy: str
    order: str
    requests: int
    models: int
    """That were known, not all of which need have been asked for."""
    loads: int
    wakes: int
    bound: int
    """Loads and wakes that every schedule needs that is as patient; see the module ``bound``."""
    belady: int
    """Loads of Belady's rule in the order of the requests: a reference."""
    loading_seconds: float
    """Of all loads and wakes together."""
    evictions: int
    thrashes: int
    """Loads and wakes of models that had been evicted less than a minute before."""
    stalled_seconds: float
    """That requests waited for their model, all together."""
    wait_p50_seconds: float
    wait_p95_seconds: float
    wait_p99_seconds: float
    longest_wait_seconds: float
    makespan_seconds: float
    """From the beginning to the end of the last answer."""
    refused: dict[str, int]
    """Requests by the error that ended them."""
    unanswered: int
    """Requests that still waited when nothing more could happen."""


def make_report(tally: Tally, *, policy: str, order: str, bound: int, belady: int) -> Report:
    """Return the figures of what was counted."""
    ordered = array("d", sorted(tally.waits))
    refused = dict(tally.refused)
    if tally.revoked:
        refused["LeaseExpiredError"] = tally.revoked
    return Report(
        policy=policy,
        order=order,
        requests=len(tally.sent_to),
        models=len(tally.models),
        loads=tally.loads,
        wakes=tally.wakes,
        bound=bound,
        belady=belady,
        loading_seconds=tally.loading_seconds,
        evictions=tally.evictions,
        thrashes=tally.thrashes,
        stalled_seconds=math.fsum(ordered),
        wait_p50_seconds=percentile(ordered, 50),
        wait_p95_seconds=percentile(ordered, 95),
        wait_p99_seconds=percentile(ordered, 99),
        longest_wait_seconds=percentile(ordered, 100),
        makespan_seconds=tally.ended_at,
        refused=refused,
        unanswered=tally.unanswered,
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest of the *ordered* values that *percent* of them do not exceed."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def table(report: Report) -> str:
    """Return the figures as lines of text for people."""
    refused = ", ".join(f"{count} {kind}" for kind, count in sorted(report.refused.items()))
    rows = [
        ("policy", report.policy if report.order == "fair" else f"{report.policy}, strict order"),
        ("requests", f"{report.requests:,} for {report.models:,} models"),
        ("loads", f"{report.loads:,} (bound {report.bound:,}, Belady {report.belady:,})"),
        ("wake-ups", f"{report.wakes:,}"),
        ("evictions", f"{report.evictions:,}"),
        ("thrash", f"{report.thrashes:,} came back within {THRASH_SECONDS:.0f} s"),
        ("seconds spent loading", f"{report.loading_seconds:,.1f}"),
        ("seconds stalled", f"{report.stalled_seconds:,.1f}"),
        (
            "wait",
            f"p50 {report.wait_p50_seconds:.2f} s, p95 {report.wait_p95_seconds:.2f} s, "
            f"p99 {report.wait_p99_seconds:.2f} s, longest {report.longest_wait_seconds:.2f} s",
        ),
        ("makespan", f"{report.makespan_seconds:,.1f} s"),
        ("refused", refused or "none"),
    ]
    if report.unanswered:
        rows.append(("never answered", f"{report.unanswered:,}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def comparison(reports: Sequence[Report]) -> str:
    """Return a Markdown table of several runs of one trace, beside the first of them."""
    lines = [
        "| policy | loads | wake-ups | evictions | thrash | stalled | beside the first | "
        "p50 wait | p95 wait | p99 wait |",
        "| --- |" + " ---: |" * 9,
    ]
    for each in reports:
        beside = each.stalled_seconds / (reports[0].stalled_seconds or 1.0)
        lines.append(
            f"| `{each.policy}` | {each.loads} | {each.wakes} | {each.evictions} | "
            f"{each.thrashes} | {each.stalled_seconds:.0f} s | {beside:.2f} | "
            f"{each.wait_p50_seconds:.1f} s | {each.wait_p95_seconds:.1f} s | "
            f"{each.wait_p99_seconds:.1f} s |"
        )
    return "\n".join(lines)


def summary(report: Report) -> str:
    """Return one line with what matters most."""
    return (
        f"{report.policy}: {report.requests} requests, {report.loads} loads, "
        f"{report.wakes} wake-ups, bound {report.bound}, "
        f"stalled {report.stalled_seconds:.1f} s, p99 wait {report.wait_p99_seconds:.2f} s"
    )
