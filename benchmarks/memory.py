"""How close estimates of memory come to what llama.cpp says, ours and others'."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks.memory_formulas import file_size_rule, ollama_rule
from benchmarks.memory_times import time_estimates
from benchmarks.table import write_into
from llm_router_mw.memory.model_file import ModelFile, ModelFiles
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import Model
from tests.support.dry_runs import DryRuns
from tests.support.estimate_matrix import Comparison, Matrix, drawn_options
from tests.support.sparse_models import SPARSE_MODELS

_HEADINGS = (
    "model",
    "loads",
    "ours: error (scratch alone)",
    "ours: the most",
    "file size × 1.2 + 2 GiB",
    "Ollama before a load",
)
_DRY_RUNS = ("llama-8b", "qwen35-27b")
"""Models whose dry runs are timed: one without recurrent state, and one with much."""
_DOCUMENT = click.Path(exists=True, dir_okay=False, writable=True, path_type=Path)


class Row(Struct, frozen=True, kw_only=True):
    """Errors of all loads of one model, as parts of the truth; below 0 is too little."""

    name: str
    ours: tuple[float, ...]
    scratch: tuple[float, ...]
    most: tuple[float, ...]
    file_size: tuple[float, ...]
    ollama: tuple[float, ...]

    def cells(self) -> tuple[str, ...]:
        """Return what the table shows."""
        return (
            self.name,
            str(len(self.ours)),
            f"{_typical(self.ours)} ({_typical(self.scratch)})",
            _ends(self.most),
            _ends(self.file_size),
            _ends(self.ollama),
        )


@click.command("memory")
@click.option("--loads", type=click.IntRange(1), default=40, help="Loads of each model.")
@click.option("--seed", type=int, default=7, help="Draws the same options again.")
@click.option("--only", multiple=True, type=click.Choice(SPARSE_MODELS), help="Repeatable.")
@click.option("--write", type=_DOCUMENT, help="Document for the table.")
def memory(*, loads: int, seed: int, only: tuple[str, ...], write: Path | None) -> None:
    """Estimates of memory against llama.cpp's own dry runs."""
    with TemporaryDirectory() as folder, DryRuns() as dry_runs:
        times = list(time_estimates(Path(folder), _DRY_RUNS))
        matrix = Matrix(Path(folder), dry_runs)
        rows = [row for name in only or SPARSE_MODELS for row in _rows(matrix, name, seed, loads)]
    total = _total(rows)
    table = Table(*_HEADINGS)
    for row in [*rows, total]:
        table.add_row(*row.cells())
    console = Console()
    console.print(table)
    for sentence in times:
        console.print(sentence, highlight=False)
    if write is not None:
        write_into(write, markdown([*rows, total], times))


def markdown(rows: Sequence[Row], times: Sequence[str]) -> str:
    """Return *rows* as a table in Markdown, and *times* below it."""
    lines = [_HEADINGS, ("---",) * len(_HEADINGS), *(row.cells() for row in rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + "".join(f"\n{sentence}\n" for sentence in times)


def _rows(matrix: Matrix, name: str, seed: int, loads: int) -> Iterator[Row]:
    drawn = (matrix.compare(name, options) for options in drawn_options(name, seed, loads))
    found = [each for each in drawn if each is not None]
    if not found:
        return
    model = Model(id=name, path=found[0].path, source="benchmarks")
    file = ModelFiles().read(model)

    def errors(estimate: Callable[[Comparison], int]) -> tuple[float, ...]:
        return tuple(estimate(each) / each.real - 1 for each in found)

    yield Row(
        name=name,
        ours=errors(lambda each: each.our_weights + each.our_context + each.our_compute),
        scratch=tuple(each.compute_error for each in found),
        most=errors(lambda each: each.our_upper),
        file_size=errors(lambda each: file_size_rule(file)),
        ollama=errors(lambda each: ollama_rule(file, _n_ctx(file, each))),
    )


def _n_ctx(file: ModelFile, load: Comparison) -> int:
    return resolve_context(file.shape, load.options).n_ctx


def _total(rows: Sequence[Row]) -> Row:
    def all_of(pick: Callable[[Row], tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(error for row in rows for error in pick(row))

    return Row(
        name="all",
        ours=all_of(lambda row: row.ours),
        scratch=all_of(lambda row: row.scratch),
        most=all_of(lambda row: row.most),
        file_size=all_of(lambda row: row.file_size),
        ollama=all_of(lambda row: row.ollama),
    )


def _typical(errors: Sequence[float]) -> str:
    return f"{median(abs(error) for error in errors):.1%}"


def _ends(errors: Sequence[float]) -> str:
    return f"{min(errors):+.0%} … {max(errors):+.0%}"
