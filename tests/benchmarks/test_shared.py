"""What the shared host costs is measured beside a router in the web process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.processes import cpu_seconds
from benchmarks.shared import Mode, report


def test_the_figures_are_told_with_what_is_added_and_the_targets() -> None:
    local = Mode("local", [0.004, 0.005, 0.009], [80e-6])
    shared = Mode("shared", [0.0065], [60e-6, 70e-6], [10e-6])
    first_token, chunk = report(local, shared)
    assert "5.00 ms with a router in the web process" in first_token
    assert "+1.50 ms (target: 2 at most)" in first_token
    assert "65.0 µs with the shared host: -15.0 µs (target: 40 at most)" in chunk
    assert chunk.endswith("the host for 10.0 µs")


def test_the_time_of_a_process_is_what_it_has_computed_for() -> None:
    before, began = cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() - began < 0.05:
        pass
    assert 0.05 <= cpu_seconds(os.getpid()) - before <= 1.0


def test_both_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    options = ["--requests", "1", "--rounds", "1", "--tokens", "2", "--cache-dir", str(tmp_path)]
    ran = CliRunner().invoke(main, ["shared", *options])
    assert ran.exit_code == 0, ran.output
    assert ran.output.startswith("first token: ")
    assert "the web process computes for " in ran.output
