"""Scenarios on a real server of ours, and what a comparison makes of several sides."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.answer import RefusedError
from benchmarks.bare_load import bare_load_seconds
from benchmarks.comparison import Comparison
from benchmarks.models.store import ModelStore
from benchmarks.outcome import Metric, Outcome
from benchmarks.processes import largest_private_mib
from benchmarks.scenario import Sample, Scenario
from benchmarks.scenarios.conversation import conversation
from benchmarks.scenarios.embeddings import embeddings
from benchmarks.scenarios.first_token import first_token
from benchmarks.scenarios.long_prompt import long_prompt
from benchmarks.scenarios.shared_prompt import shared_prompt
from benchmarks.scenarios.suite import engine_scenarios
from benchmarks.scenarios.swapping import returning, swapping
from benchmarks.scenarios.throughput import throughput
from benchmarks.scenarios.two_models import two_models
from benchmarks.scenarios.waking import asleep, waking
from benchmarks.servers import PeerSide, Server, ServerError, Side
from benchmarks.settings import Settings

SETTINGS = Settings("dense", 1024, 2)


class FakeServer(Server):
    """A server that only exists by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model = "fake"
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


class FakeSide(Side):
    """Starts fake servers."""

    def __init__(self, name: str, *, broken: bool = False) -> None:
        super().__init__(1)
        self.name = name
        self.started: list[FakeServer] = []
        self._broken = broken

    def start(self, model: Path, settings: Settings) -> Server:
        if self._broken:
            raise ServerError(f"{self.name} did not start:\nsomething it printed")
        self.started.append(FakeServer(self.name))
        return self.started[-1]


class Script:
    """A measurement whose values are known; it notes who was asked, and what was drawn."""

    def __init__(self, refusing: str = "", tokens: dict[str, int] | None = None) -> None:
        self.asked: list[str] = []
        self.drawn: dict[str, list[float]] = {}
        self._refusing = refusing
        self._tokens = tokens or {}

    def __call__(self, server: Server, rng: random.Random) -> Sample:
        if server.name == self._refusing:
            raise RefusedError("400: not supported")
        self.asked.append(server.name)
        self.drawn.setdefault(server.name, []).append(rng.random())
        value = 2.0 if server.name == "ours" else 1.0
        return Sample((value,), (7, self._tokens.get(server.name, 3)))

    def scenario(self) -> Scenario:
        metric = Metric(name="speed", higher_is_better=True)
        return Scenario("scripted", "A script", SETTINGS, (metric,), self)


def sides() -> list[FakeSide]:
    return [FakeSide("ours"), FakeSide("unified"), FakeSide("split")]


def compare(script: Script, sides: list[FakeSide], *, fresh: bool = False) -> Outcome:
    """Run two rounds of *script*."""
    scenario = replace(script.scenario(), fresh_servers=fresh)
    return Comparison(scenario, sides, Path("model")).run(2)


def test_sides_take_turns_with_the_same_prompts_and_new_ones_in_each_round() -> None:
    script = Script()

    outcome = compare(script, sides())

    assert script.asked == ["ours", "unified", "split", "unified", "split", "ours"]
    assert script.drawn["ours"] == script.drawn["unified"] == script.drawn["split"]
    assert len(set(script.drawn["ours"])) == 2
    assert outcome.series[0].values == {
        "ours": [2.0, 2.0],
        "unified": [1.0, 1.0],
        "split": [1.0, 1.0],
    }
    assert outcome.notes == []


@pytest.mark.parametrize(("fresh", "starts"), [(False, 1), (True, 2)])
def test_servers_are_kept_or_fresh_and_always_stopped(fresh: bool, starts: int) -> None:
    all_sides = sides()

    compare(Script(), all_sides, fresh=fresh)

    assert [len(side.started) for side in all_sides] == [starts] * 3
    assert all(server.stopped for side in all_sides for server in side.started)


def test_a_peer_that_refuses_is_left_out_with_a_note() -> None:
    outcome = compare(Script(refusing="split"), sides())

    assert set(outcome.series[0].values) == {"ours", "unified"}
    assert outcome.notes == ["split left out: 400: not supported"]


def test_without_ours_there_are_no_figures() -> None:
    outcome = compare(Script(refusing="ours"), sides())

    assert outcome.series == []
    assert outcome.notes == ["ours left out: 400: not supported"]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_server_that_does_not_start_is_left_out_without_what_it_printed(fresh: bool) -> None:
    outcome = compare(Script(), [FakeSide("ours"), FakeSide("split", broken=True)], fresh=fresh)

    assert set(outcome.series[0].values) == {"ours"}
    assert outcome.notes == ["split left out: split did not start"]


def test_unequal_work_is_noted() -> None:
    outcome = compare(Script(tokens={"split": 5}), sides())

    assert outcome.notes == [
        "not the same work, tokens of prompts and answers: ours 7+3; unified 7+3; split 7+5"
    ]


@pytest.mark.parametrize(
    ("scenario", "tokens"),
    [
        (throughput(2, 6, target=None), 12),
        (first_token(20, 2, added_limit_ms=None), 8),
        (shared_prompt(2, 40, apart_seconds=0.01, target=1.0), 64),
        (long_prompt(300), 1),
        (embeddings(3, 1), 0),
        (conversation(2, 2, 5), 20),
        (waking(512, 2, rest_seconds=0.0, target=2.0), 4),
        (swapping(512, 1, rest_seconds=0.0, target=None), 4),
        (returning(60, rest_seconds=0.0, target=None), 8),
        (asleep("full", 20, limit_mib=None), 2),
        (two_models(2, 2, 3), 12),
    ],
    ids=lambda value: value.name if isinstance(value, Scenario) else "",
)
def test_ours_can_be_measured(
    scenario: Scenario, tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server of a scenario is found as a module of the repository.
    monkeypatch.chdir(Path(__file__).parents[2])
    model = ModelStore(tmp_path, tiny=True).path(scenario.settings.model_kind)
    server = Side(1).start(model, scenario.settings)
    try:
        sample = scenario.measure(server, random.Random(1))
    finally:
        server.stop()

    # A single figure may be nothing: a client that lags reads several pieces at once.
    assert min(sample.values) >= 0
    assert max(sample.values) > 0
    assert sample.tokens[1] == tokens
    assert sample.tokens[0] > 0


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"(?s)ours did not start.*does not exist"):
        Side(1).start(tmp_path / "missing.gguf", SETTINGS)


@pytest.mark.parametrize(
    ("unified", "pooling", "expected"),
    [(True, "", "--kv-unified"), (False, "", "--no-kv-unified"), (True, "mean", "--pooling mean")],
)
def test_the_peer_is_started_with_the_same_settings(
    unified: bool, pooling: str, expected: str
) -> None:
    settings = replace(SETTINGS, pooling=pooling)
    side = PeerSide(3, Path("llama-server"), unified=unified)

    command = " ".join(side.command(Path("m.gguf"), settings, 80))

    shared = "--model m.gguf --port 80 --ctx-size 1024 --parallel 2 --threads 3"
    assert command.startswith(f"llama-server {shared}")
    assert expected in command
    ours = " ".join(Side(3, unified=unified).command(Path("m.gguf"), settings, 80))
    assert shared in ours
    assert expected in ours


def test_models_to_swap_and_sleep_are_told_to_both_sides(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"weights")
    settings = replace(SETTINGS, n_models=2, sleep_idle_seconds=5, sleep_level="context")
    sides = (Side(3), PeerSide(3, Path("llama-server"), unified=True))

    ours, peers = (" ".join(side.command(model, settings, 80)) for side in sides)

    shared = f"--models-dir {tmp_path / 'm.2'} --models-max 1 --sleep-idle-seconds 5"
    assert shared in ours
    assert shared in peers
    assert "--sleep-level context" in ours
    assert "--model " not in ours + peers
    files = sorted((tmp_path / "m.2").iterdir())
    assert [file.name for file in files] == ["m-a.gguf", "m-b.gguf"]
    assert {file.read_bytes() for file in files} == {b"weights"}


def test_of_a_servers_processes_the_one_that_holds_most_is_found() -> None:
    holds = "x = bytearray(b'1') * (100 << 20); print(flush=True); input()"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {holds!r}])"
    command = [sys.executable, "-c", starts]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pid, held = largest_private_mib(process.pid)
        process.communicate(b"\n")
    assert pid != process.pid
    assert 100 < held < 150


def test_what_llama_cpp_alone_takes_is_measured_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    model = ModelStore(tmp_path, tiny=True).path("dense")

    assert 0 < bare_load_seconds(model, SETTINGS) < 60


@pytest.mark.parametrize("quick", [False, True])
def test_scenarios_have_names_of_their_own_and_room_for_each_request(quick: bool) -> None:
    scenarios = engine_scenarios(quick=quick)

    assert len({scenario.name for scenario in scenarios}) == len(scenarios)
    assert all(each.settings.n_ctx % each.settings.n_parallel == 0 for each in scenarios)
