"""The table on the terminal and in the documents."""

from __future__ import annotations

import socket
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.machine import describe_machine
from benchmarks.outcome import Metric, Outcome, Series
from benchmarks.table import BEGIN, END, HEADINGS, markdown, rows, terminal_table, write_into

SPEED = Metric(name="tokens/s", higher_is_better=True, target=1.05)
VALUES = {"ours": [120.0, 130.0, 110.0], "unified": [100.0] * 3, "split": [90.0] * 3}
OUTCOMES = [
    Outcome(
        scenario="throughput-8",
        title="8 streams",
        rounds=3,
        series=[Series(SPEED, VALUES), Series(Metric(name="gap, ms"), {"ours": [7.0]})],
    ),
    Outcome(scenario="json", title="JSON", rounds=3, series=[], notes=["ours left out: no"]),
]


def test_a_row_holds_medians_with_their_ends_the_ratio_and_the_verdict() -> None:
    assert rows(OUTCOMES) == [
        (
            "8 streams",
            "tokens/s",
            "120 (110..130)",
            "–",
            "100 (100..100)",
            "90 (90..90)",
            "1.2 (1.1..1.3)",
            "≥ 1.05× met",
        ),
        ("", "gap, ms", "7 (7..7)", "–", "–", "–", "–", ""),
    ]


def test_the_markdown_tells_machine_figures_and_notes() -> None:
    lines = markdown(OUTCOMES, ["2 cores"]).splitlines()

    assert lines[0] == "- 2 cores"
    assert lines[2] == f"| {' | '.join(HEADINGS)} |"
    assert all(line.count("|") == len(HEADINGS) + 1 for line in lines[2:6])
    assert lines[-1] == "- JSON: ours left out: no"


def test_the_terminal_shows_the_same_cells() -> None:
    printed = StringIO()
    Console(width=200, file=printed).print(terminal_table(OUTCOMES))

    assert all(cell in printed.getvalue() for row in rows(OUTCOMES) for cell in row)


def test_writing_replaces_what_stood_between_the_marks(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    write_into(document, "new")
    write_into(document, "newer")

    assert document.read_text() == f"before\n{BEGIN}\n\nnewer\n{END}\nafter\n"


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("text")

    with pytest.raises(ValueError, match="has no lines"):
        write_into(document, "new")
    assert document.read_text() == "text"


def test_the_machine_is_described_without_its_name_or_paths() -> None:
    lines = describe_machine("version: 1")

    assert "cores of" in lines[0]
    assert lines[-1] == "llama-server version: 1"
    assert all("/" not in line and socket.gethostname() not in line for line in lines)
    assert describe_machine(None) == lines[:-1]
