"""The host's memory: what the system says, and what a container leaves of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from llm_router_mw.memory.host import HostProbe
from llm_router_mw.protocols import DeviceProbe
from llm_router_mw.types import HOST, Device
from tests.support.kernel_files import GIB, cgroup_v2, meminfo, process, write


def host(root: Path) -> Device:
    [device] = HostProbe(root).inventory()
    assert (device.id, device.pool, device.kind) == (HOST, HOST, "host")
    return device


def test_it_is_a_probe() -> None:
    assert isinstance(HostProbe(), DeviceProbe)


def test_total_and_available(tmp_path: Path) -> None:
    device = host(write(tmp_path, meminfo(128 * GIB, 100 * GIB)))
    assert (device.total_bytes, device.free_bytes) == (128 * GIB, 100 * GIB)
    assert device.note == ""


def test_a_container_leaves_less(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": 16 * GIB, "sys/fs/cgroup/memory.current": 6 * GIB}
    device = host(write(tmp_path, meminfo(128 * GIB, 100 * GIB), cgroup_v2(), files))
    assert (device.total_bytes, device.free_bytes) == (16 * GIB, 10 * GIB)
    assert "cgroup" in device.note


def test_a_limit_beyond_the_machine_changes_nothing(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": 512 * GIB, "sys/fs/cgroup/memory.current": 6 * GIB}
    device = host(write(tmp_path, meminfo(128 * GIB, 100 * GIB), cgroup_v2(), files))
    assert (device.total_bytes, device.free_bytes) == (128 * GIB, 100 * GIB)
    assert device.note == ""


def test_what_is_free_may_be_the_machines_though_the_limit_is_the_groups(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": 64 * GIB, "sys/fs/cgroup/memory.current": 1 * GIB}
    device = host(write(tmp_path, meminfo(128 * GIB, 20 * GIB), cgroup_v2(), files))
    assert (device.total_bytes, device.free_bytes) == (64 * GIB, 20 * GIB)


@pytest.mark.parametrize("text", [None, "", "MemTotal: 5 kB\n"])
def test_other_systems_say_nothing(tmp_path: Path, text: str | None) -> None:
    device = host(write(tmp_path, {} if text is None else {"proc/meminfo": text}))
    assert (device.total_bytes, device.free_bytes) == (0, 0)
    assert "does not tell" in device.note
    assert HostProbe(tmp_path).used_bytes([os.getpid()]) == {}


def test_what_processes_hold_together(tmp_path: Path) -> None:
    files = process(7, RssAnon=1 * GIB, RssFile=9 * GIB, RssShmem=2 * GIB) | process(8, RssAnon=GIB)
    root = write(tmp_path, files | {"proc/self/status": ""})
    assert HostProbe(root).used_bytes([7, 8, 9]) == {HOST: 4 * GIB}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_very_machine_can_be_read() -> None:
    [device] = HostProbe().inventory()
    assert 0 < device.free_bytes < device.total_bytes
    assert HostProbe().used_bytes([os.getpid()])[HOST] > 1_000_000
