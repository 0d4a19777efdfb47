"""The benchmark of the scheduler works, on a small scale."""

from __future__ import annotations

from click.testing import CliRunner

from benchmarks.__main__ import main


def test_decisions_and_a_run_are_timed() -> None:
    ran = CliRunner().invoke(main, ["scheduler", "--decisions", "60", "--requests", "300"])

    assert ran.exit_code == 0, ran.output
    single, run = ran.output.splitlines()
    assert single.startswith("cost-aware: ")
    assert "tickets waiting: p50 " in single
    assert run.startswith("300 requests, ")
