"""``llm-router-mw simulate``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llm_router_mw.cli import main
from llm_router_mw.errors import ConfigError
from llm_router_mw.scheduler import events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.simulator.event_trace import Setup, event_line, setup_line
from llm_router_mw.types import InstanceKey, LoadOptions

TRACE = """\
{"model": "a", "size_bytes": 10737418240, "load_seconds": 2.0, "overhead_bytes": 1}
{"model": "b", "size_bytes": 10737418240, "load_seconds": 2.0, "overhead_bytes": 1}
{"time": 0.0, "model": "a", "key": "k"}
{"time": 50.0, "model": "b", "key": "k"}
{"time": 50.0, "model": "a", "key": "k"}
"""


@pytest.fixture
def trace(tmp_path: Path) -> str:
    path = tmp_path / "trace.jsonl"
    path.write_text(TRACE)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments])


def figures(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_last_line_sums_it_up(trace: str) -> None:
    result = run(trace, "--devices", "cuda:12GiB")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == (
        "lru: 3 requests, 3 loads, 0 wake-ups, bound 2, stalled 11.5 s, p99 wait 7.00 s"
    )
    assert "seconds spent loading" in result.stdout


def test_json_holds_the_figures_and_nothing_else(trace: str) -> None:
    result = run(trace, "--devices", "cuda:12GiB", "--json")

    assert json.loads(result.stdout)["loads"] == 3
    assert "stalled 11.5 s" in result.stderr


@pytest.mark.parametrize(
    ("options", "loads"),
    [
        (["--devices", "cuda:12GiB"], 3),
        (["--devices", "cuda:24GiB"], 2),
        (["--devices", "cuda:12GiB,cuda:12GiB"], 2),
        (["--devices", "cuda:12GiB,host:999GiB"], 3),
        (["--devices", "cuda:24GiB", "--models-memory-margin", "8192"], 3),
        (["--devices", "cuda:24GiB", "--models-max", "1"], 3),
    ],
)
def test_the_machine_is_as_told(trace: str, options: list[str], loads: int) -> None:
    assert figures(trace, *options)["loads"] == loads


def test_a_victim_may_sleep(trace: str) -> None:
    found = figures(trace, "--devices", "cuda:12GiB", "--evict-to", "full")

    assert (found["loads"], found["wakes"]) == (2, 1)


@pytest.mark.parametrize("policy", ["lru", "lfu", "largest-first", "cost-aware"])
def test_a_policy_is_chosen_by_name(policy: str) -> None:
    found = figures("--generate", "agent", "--requests", "60", "--policy", policy)

    assert (found["policy"], found["requests"]) == (policy, 60)


def test_policies_are_compared(trace: str) -> None:
    both = ["--policy", "lru", "--policy", "lfu", "--devices", "cuda:12GiB"]

    result = run(trace, *both)

    lines = result.stdout.splitlines()
    assert lines[2].startswith("| `lru` | 3 | 0 | 2 | 1 | 12 s | 1.00 | ")
    assert lines[3].startswith("| `lfu` | 3 |")
    assert [line.partition(":")[0] for line in lines[-2:]] == ["lru", "lfu"]
    assert [each["policy"] for each in json.loads(run(trace, *both, "--json").stdout)] == [
        "lru",
        "lfu",
    ]


def test_a_picture_shows_one_policy(trace: str, tmp_path: Path) -> None:
    result = run(trace, "--policy", "lru", "--policy", "lfu", "--picture", str(tmp_path / "p.svg"))

    assert result.exit_code == 2
    assert "--picture shows one policy" in result.output


def test_an_unknown_policy_lists_the_known_ones(trace: str) -> None:
    result = run(trace, "--policy", "random")

    assert result.exit_code == 1
    assert "'random' is not registered" in result.output


def test_the_order_may_be_strict(trace: str) -> None:
    result = run(trace, "--order", "fifo", "--closed-loop")

    assert result.exit_code == 0
    assert "lru, strict order" in result.stdout


def test_a_made_trace_can_be_written_and_played(tmp_path: Path) -> None:
    written = str(tmp_path / "made.jsonl")
    made = ["--generate", "zipf", "--requests", "80", "--seed", "5", "--models", "6"]

    assert run(*made, "--write-trace", written).stdout == ""

    assert figures(written) == figures(*made)


def test_a_picture_is_drawn(trace: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"

    assert run(trace, "--picture", str(picture)).exit_code == 0

    assert "lru: 2 loads" in picture.read_text()


def test_it_is_a_png_where_the_name_says_so(trace: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.PNG"

    assert run(trace, "--picture", str(picture)).exit_code == 0

    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_png_that_cannot_be_drawn_is_refused_before_anything_is_played(
    trace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ConfigError("pip install 'llm-router-mw[picture]'")

    monkeypatch.setattr("llm_router_mw.cli.simulate.check_png", missing)
    result = run(trace, "--picture", str(tmp_path / "p.png"))

    assert result.exit_code == 1
    assert result.output == "Error: pip install 'llm-router-mw[picture]'\n"


def test_recorded_events_are_replayed(tmp_path: Path) -> None:
    key = InstanceKey("a", LoadOptions())
    asked = events.Request(id=1, instances=(key,), models=("a",))
    path = tmp_path / "events.jsonl"
    path.write_text(f"{setup_line(Setup(limits=Limits(models_max=2)))}\n{event_line(1.5, asked)}\n")

    result = run("--events", str(path))

    assert result.exit_code == 0, result.output
    assert "     1.500  Request(id=1, instances=(a), models=(a))" in result.stdout
    assert "→ AskPrice(instance=a)" in result.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["--generate", "zipf", "TRACE"], ["TRACE", "--events", "TRACE"]]
)
def test_what_to_play_is_said_once(trace: str, arguments: list[str]) -> None:
    result = run(*(trace if each == "TRACE" else each for each in arguments))

    assert result.exit_code == 2
    assert "name a TRACE, or give --generate, or --events" in result.output


def test_only_a_made_trace_is_written(trace: str, tmp_path: Path) -> None:
    result = run(trace, "--write-trace", str(tmp_path / "x"))

    assert result.exit_code == 2
    assert "--write-trace needs --generate" in result.output


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(TRACE + "nonsense\n")

    result = run(str(path))

    assert result.exit_code == 1
    assert result.output.startswith("Error: line 6: ")
