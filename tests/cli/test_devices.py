"""``llm-router-mw devices`` shows at a glance what there is for models."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from llm_router_mw.cli import log, main
from llm_router_mw.default_plugins import device_probes
from llm_router_mw.errors import PluginLoadError
from llm_router_mw.types import HOST, Device
from tests.support import fake_nvml
from tests.support.fake_nvml import GIB, gb10, h200


class FakeHost:
    """A host of 128 GiB of which others hold 28."""

    name = "host"

    def __init__(self, total: int = 128 * GIB, note: str = "") -> None:
        self._device = Device(
            id=HOST,
            pool=HOST,
            kind="host",
            name="host memory",
            total_bytes=total,
            free_bytes=max(0, total - 28 * GIB),
            note=note,
        )

    def inventory(self) -> Sequence[Device]:
        return [self._device]

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        return {}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs of its own and one that shares the host's memory."""
    monkeypatch.setattr(log, "configure", lambda: None)
    monkeypatch.setattr(device_probes, "installed_backends", lambda environ: frozenset({"cuda"}))
    monkeypatch.setattr(device_probes, "HostProbe", FakeHost)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_nvml.install(monkeypatch, h200(), h200(1, free=20 * GIB), gb10())


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["devices", *arguments])
    assert result.exit_code == 0, result.output
    return result


def lines(*arguments: str) -> list[str]:
    return run(*arguments).output.splitlines()


def test_a_line_for_each_device_and_its_names_below() -> None:
    heading, host, first, second, third, *names = lines()
    assert heading.split()[:4] == ["device", "name", "kind", "pool"]
    assert host.split()[0] == "host"
    assert "128.0 GiB" in host
    assert "28.0 GiB" in host  # used by others
    assert "99.0 GiB" in host  # for models, the margin kept
    assert first.startswith("GPU 0")
    assert "NVIDIA H200" in first
    assert "120.4 GiB" in second
    assert "19.0 GiB" in second
    assert third.split()[-2] != "own"
    assert [line.partition(":")[0] for line in names] == ["GPU 0", "GPU 1", "GPU 2"]
    assert h200().uuid in names[0]
    assert "0000:19:00.0" in names[0]
    assert "host's memory" in names[2]


def test_the_bar_shows_what_others_hold_what_is_free_and_the_margin() -> None:
    bars = [line.split()[-1] for line in lines("--models-memory-margin", "32768")[1:3]]
    assert bars[0] == "█" * 18 + "░" * 6  # others 28 and models 68 of 128 GiB
    assert bars[1].count("█") < 24


def test_the_margin_can_be_said_by_device() -> None:
    rows = json.loads(run("--json", "--models-memory-margin", "host=2048,0").output)
    assert [row["margin_bytes"] for row in rows] == [2 * GIB, 0, 0, 2 * GIB]


def test_programs_get_json() -> None:
    rows: list[dict[str, Any]] = json.loads(run("--json").output)
    host, first, _, unified = rows
    assert (host["index"], first["index"], unified["index"]) == (None, 0, 2)
    assert (host["others_bytes"], host["available_bytes"]) == (28 * GIB, 99 * GIB)
    assert first["total_bytes"] == 150_754_820_096
    assert (unified["pool"], unified["total_bytes"]) == (HOST, 128 * GIB)


def test_what_is_unknown_is_shown_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_probes, "HostProbe", lambda: FakeHost(0, "it does not tell"))
    fake_nvml.install(monkeypatch)
    _, host, note = lines()
    assert host.split()[-5:] == [*["?"] * 4, "?" * 24]
    assert note == "host: host, it does not tell"


def test_a_broken_plugin_is_an_error_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: object) -> None:
        raise PluginLoadError("plugin 'x' is broken")

    monkeypatch.setattr("llm_router_mw.cli.devices.load_registry", broken)
    result = CliRunner().invoke(main, ["devices"])
    assert result.exit_code == 1
    assert result.output.strip() == "Error: plugin 'x' is broken"


@pytest.mark.parametrize(("columns", "has_bars"), [(200, True), (100, False)])
def test_a_narrow_terminal_shows_no_bars(
    monkeypatch: pytest.MonkeyPatch, columns: int, has_bars: bool
) -> None:
    def terminal(file: io.StringIO, highlight: bool) -> Console:
        return Console(
            file=file, highlight=highlight, force_terminal=True, width=columns, color_system=None
        )

    monkeypatch.setattr("llm_router_mw.cli.devices.Console", terminal)
    assert ("█" in run().output) is has_bars
