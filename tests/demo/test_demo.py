"""The demo as a newcomer meets it: what it prints is run as it was printed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ServerProcess, free_port, server_process

PROGRAM = Path(sys.executable).parent / "llm-router-mw"
SECONDS = 40


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[ServerProcess]:
    command = [str(PROGRAM), "demo", "--port", str(free_port())]
    with server_process(command, tmp_path, cwd=tmp_path) as process:
        process.wait_for_text("Ctrl-C stops.")
        yield process


def run(command: list[str], text: str = "") -> str:
    """Run a program without proxies and return what it printed."""
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=SECONDS, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def printed_curl(demo: ServerProcess) -> list[str]:
    return [line for line in demo.stdout.splitlines() if line.startswith("curl ")]


def printed_python(demo: ServerProcess) -> str:
    _, begin, rest = demo.stdout.partition("from openai import")
    return begin + rest.partition("\n\n")[0]


def test_the_printed_lines_work_and_the_second_model_evicts_the_first(
    demo: ServerProcess,
) -> None:
    listing, chat, streamed = (run(["bash", "-c", line]) for line in printed_curl(demo))
    assert '"guide"' in listing
    assert '"companion"' in listing
    assert "add_middleware" in chat
    assert streamed.count("data: ") > 3
    assert streamed.rstrip().endswith("data: [DONE]")
    demo.wait_for_text("evicted")
    [line] = [line for line in demo.stderr.splitlines() if "evicted" in line]
    assert "guide" in line
    assert "companion" in line
    assert "add_middleware" in run([sys.executable, "-"], printed_python(demo))
    assert demo.stop(signal.SIGINT) == 0
