"""llama.cpp is asked in a child process: once, within a time, and only where it could tell more."""

from __future__ import annotations

import sys
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_router_mw.memory.ggml_probe import GgmlProbe
from llm_router_mw.protocols import DeviceProbe
from llm_router_mw.types import HOST, Device, DeviceKind
from tests.support.kernel_files import GIB, write

ARC = Device(
    id="0000:03:00.0",
    pool="0000:03:00.0",
    kind="vulkan",
    name="Intel Arc B580",
    total_bytes=12 * GIB,
    free_bytes=11 * GIB,
    pci_id="0000:03:00.0",
    backend_name="Vulkan0",
)
APPLE = Device(
    id="MTL0",
    pool="MTL0",
    kind="metal",
    name="Apple M4 Max",
    total_bytes=48 * GIB,
    free_bytes=48 * GIB,
    backend_name="MTL0",
)
AMD = msgspec.structs.replace(ARC, id="0000:c1:00.0", pci_id="0000:c1:00.0", kind="rocm")

CHILD = """
import os, pathlib, sys
asked = pathlib.Path(sys.argv[1])
asked.write_text(asked.read_text() + "x" if asked.exists() else "x")
print("noise of a driver", file=sys.stderr)
sys.stdout.write(os.environ["ANSWER"])
"""


class Asked:
    """A probe whose child answers what it is told to, and counts how often it was asked."""

    def __init__(
        self, folder: Path, *devices: Device, backends: Set[DeviceKind] = frozenset({"vulkan"})
    ) -> None:
        self._file = folder / "asked"
        self._now = 1000.0
        self._options: dict[str, Any] = {
            "command": (sys.executable, "-c", CHILD, str(self._file)),
            "root": folder,
            "clock": lambda: self._now,
        }
        self._backends = backends
        self.environ = {"ANSWER": msgspec.json.encode(devices).decode()}

    def probe(self, **options: Any) -> GgmlProbe:
        return GgmlProbe(self.environ, self._backends, **self._options | options)

    def wait(self, seconds: float) -> None:
        self._now += seconds

    @property
    def times(self) -> int:
        return len(self._file.read_text()) if self._file.exists() else 0


def test_it_is_a_probe() -> None:
    assert isinstance(GgmlProbe({}, frozenset()), DeviceProbe)


def test_what_the_child_says_is_what_there_is(tmp_path: Path) -> None:
    asked = Asked(tmp_path, ARC, APPLE)
    assert list(asked.probe().inventory()) == [ARC, APPLE]


def test_it_knows_of_no_processes(tmp_path: Path) -> None:
    assert Asked(tmp_path, ARC).probe().used_bytes([1]) == {}


# When it is asked


@pytest.mark.parametrize(
    ("backends", "has_nvidia", "times"),
    [
        (set(), False, 0),
        (set(), True, 0),
        ({"cuda"}, True, 0),
        ({"cuda"}, False, 1),  # as on a board whose driver has no NVML
        ({"cuda", "vulkan"}, True, 1),
        ({"metal"}, False, 1),
    ],
)
def test_it_is_asked_where_it_may_tell_more(
    tmp_path: Path, backends: Set[DeviceKind], has_nvidia: bool, times: int
) -> None:
    asked = Asked(tmp_path, backends=backends)
    asked.probe(has_nvidia=lambda: has_nvidia).inventory()
    assert asked.times == times


def repeated(asked: Asked, waits: Sequence[float]) -> int:
    """Return how often the child was asked by one probe that is asked again after each wait."""
    probe = asked.probe(max_age_seconds=60)
    probe.inventory()
    for seconds in waits:
        asked.wait(seconds)
        probe.inventory()
    return asked.times


def test_the_answer_is_kept_for_a_while(tmp_path: Path) -> None:
    assert repeated(Asked(tmp_path, ARC), [0, 30, 29]) == 1


def test_an_old_answer_is_asked_for_again(tmp_path: Path) -> None:
    assert repeated(Asked(tmp_path, ARC), [60, 60]) == 3


def test_an_answer_that_cannot_change_is_kept_for_good(tmp_path: Path) -> None:
    assert repeated(Asked(tmp_path, APPLE), [1e6, 1e6]) == 1
    assert repeated(Asked(tmp_path), [1e6, 1e6]) == 2  # counted on: and no devices are no news


def test_a_server_in_the_network_is_asked_once(tmp_path: Path) -> None:
    server = msgspec.structs.replace(ARC, id="RPC0[10.0.0.7:50052]", pci_id="", kind="rpc")
    assert repeated(Asked(tmp_path, server), [1e6, 1e6]) == 1


def test_where_the_system_tells_what_is_free_the_child_is_not_asked_for_it(tmp_path: Path) -> None:
    folder = "sys/bus/pci/devices/0000:c1:00.0"
    files = {f"{folder}/mem_info_vram_total": 24 * GIB, f"{folder}/mem_info_vram_used": 4 * GIB}
    asked = Asked(write(tmp_path, files), AMD)
    probe = asked.probe()
    [device] = probe.inventory()
    assert (device.total_bytes, device.free_bytes) == (24 * GIB, 20 * GIB)
    write(tmp_path, {f"{folder}/mem_info_vram_used": 9 * GIB})
    asked.wait(1e6)
    [device] = probe.inventory()
    assert device.free_bytes == 15 * GIB
    assert asked.times == 1


def test_an_integrated_gpu_of_amd_may_map_the_hosts_memory(tmp_path: Path) -> None:
    folder = "sys/bus/pci/devices/0000:c1:00.0"
    amounts = {"vram_total": 2, "vram_used": 1, "gtt_total": 60, "gtt_used": 10}
    files = {f"{folder}/mem_info_{name}": amount * GIB for name, amount in amounts.items()}
    integrated = msgspec.structs.replace(AMD, pool=HOST)
    [device] = Asked(write(tmp_path, files), integrated).probe().inventory()
    assert (device.total_bytes, device.free_bytes) == (62 * GIB, 51 * GIB)


# When it goes wrong


@pytest.mark.parametrize(
    "code",
    ["import os; os.abort()", "print('no json')", "raise SystemExit(3)", "print('[{\"id\": 3}]')"],
)
def test_a_child_that_fails_leaves_no_devices_and_a_warning(
    caplog: pytest.LogCaptureFixture, code: str
) -> None:
    probe = GgmlProbe({}, {"vulkan"}, command=(sys.executable, "-c", code))
    assert list(probe.inventory()) == []
    [line] = caplog.messages
    assert "llama.cpp's devices are unknown" in line


def test_a_child_that_hangs_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    probe = GgmlProbe({}, {"vulkan"}, command=command, timeout_seconds=0.2)
    assert list(probe.inventory()) == []
    assert "timed out" in caplog.text


def test_a_command_that_does_not_exist_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert list(GgmlProbe({}, {"vulkan"}, command=("/no/such/program",)).inventory()) == []
    assert "/no/such/program" in caplog.text


def test_what_was_known_stands_when_a_later_child_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Asked(tmp_path, ARC)
    probe = asked.probe()
    probe.inventory()
    probe._environ["ANSWER"] = "nothing"
    asked.wait(1e6)
    assert list(probe.inventory()) == [ARC]
    assert "are unknown" in caplog.text


def test_the_real_child_answers() -> None:
    """Whatever backends there are here, it must not be said that nothing is known."""
    import os

    from llm_router_mw.router.process import worker_environment

    found = GgmlProbe(worker_environment(os.environ), {"other"}).inventory()
    assert all(device.kind != "host" for device in found)
