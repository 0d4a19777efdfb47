"""Shows outcomes: on the terminal, and as the Markdown that the documents hold."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from benchmarks.figures import Spread
from benchmarks.outcome import OURS, OURS_SPLIT, Outcome, Series

HEADINGS = (
    "scenario",
    "figure",
    "ours",
    "ours, split",
    "llama-server, unified",
    "llama-server, split",
    "ours is × better",
    "target",
)
BEGIN = "<!-- results: written by the benchmarks -->"
END = "<!-- end of the results -->"


def rows(outcomes: list[Outcome]) -> list[tuple[str, ...]]:
    """Return the cells of the table, a row per figure."""
    return [
        (outcome.title if first else "", *_cells(series))
        for outcome in outcomes
        for first, series in zip(_firsts(outcome), outcome.series, strict=True)
    ]


def terminal_table(outcomes: list[Outcome]) -> Table:
    """Return the table for a terminal."""
    table = Table(*HEADINGS)
    for row in rows(outcomes):
        table.add_row(*row)
    return table


def markdown(outcomes: list[Outcome], about: list[str]) -> str:
    """Return the table as Markdown, below what it was measured on."""
    lines = [f"- {line}" for line in about]
    lines += ["", _line(HEADINGS), _line(("---",) * len(HEADINGS))]
    lines += [_line(row) for row in rows(outcomes)]
    notes = [f"- {outcome.title}: {note}" for outcome in outcomes for note in outcome.notes]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def write_into(document: Path, text: str) -> None:
    """Put *text* between the two marks in *document*, in place of what is there.

    Raises:
        ValueError: it has no marks.
    """
    before, after = around_results(document)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def around_results(document: Path) -> tuple[str, str]:
    """Return what stands in *document* before and after the marks.

    Raises:
        ValueError: it has none.
    """
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no lines {BEGIN!r} and {END!r} to write between")
    return before, after


def _firsts(outcome: Outcome) -> list[bool]:
    return [index == 0 for index in range(len(outcome.series))]


def _cells(series: Series) -> tuple[str, ...]:
    metric = series.metric
    wanted = [f"≥ {metric.target:g}×"] if metric.target is not None else []
    wanted += [f"≤ {metric.limit:g}"] if metric.limit is not None else []
    met = series.met()
    verdict = "" if met is None else " met" if met else " missed"
    return (
        metric.name,
        _figure(series.spread(OURS)),
        _figure(series.spread(OURS_SPLIT)),
        _figure(series.spread("unified")),
        _figure(series.spread("split")),
        _figure(series.advantage(), digits=3),
        " and ".join(wanted) + verdict,
    )


def _figure(spread: Spread | None, digits: int = 4) -> str:
    if spread is None:
        return "–"
    ends = f"{spread.low:.{digits}g}..{spread.high:.{digits}g}"
    return f"{spread.median:.{digits}g} ({ends})"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
