"""What processes hold is told cheaply, and clean pages of files are not part of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_router_mw.memory.processes import (
    ProcessMemory,
    private_bytes,
    process_memory,
    proportional_bytes,
)
from tests.support.kernel_files import GIB, MIB, process, write

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    files = process(7, RssAnon=3 * GIB, RssFile=40 * GIB, RssShmem=1 * GIB, VmLck=0)
    found = process_memory(7, write(tmp_path, files))
    assert found == ProcessMemory(anonymous_bytes=3 * GIB, shared_bytes=1 * GIB)
    assert found is not None
    assert found.private_bytes == 4 * GIB


def test_locked_files_do(tmp_path: Path) -> None:
    files = process(7, VmLck=41 * GIB, RssAnon=1 * GIB, RssFile=40 * GIB, RssShmem=0)
    found = process_memory(7, write(tmp_path, files))
    assert found == ProcessMemory(anonymous_bytes=1 * GIB, locked_bytes=40 * GIB)


def test_a_process_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    files = process(7, RssAnon=1 * GIB) | {"proc/self/status": ""}
    root = write(tmp_path, files)
    assert process_memory(8, root) is None
    assert private_bytes([7, 8], root) == 1 * GIB
    assert private_bytes([], root) == 0


def test_a_zombie_holds_nothing(tmp_path: Path) -> None:
    """Its status names no memory, and its counts are 0."""
    root = write(tmp_path, process(7) | {"proc/7/statm": "0 0 0 0 0 0 0\n"})
    assert process_memory(7, root) == ProcessMemory(anonymous_bytes=0)


def test_without_kinds_of_pages_the_counts_must_do(tmp_path: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    root = write(tmp_path, process(7, VmRSS=1 * GIB) | {"proc/7/statm": "900 500 120 1 0 80 0\n"})
    assert process_memory(7, root) == ProcessMemory(anonymous_bytes=380 * page)


@pytest.mark.parametrize("statm", [None, "", "900"])
def test_what_cannot_be_read_is_unknown(tmp_path: Path, statm: str | None) -> None:
    counts = {} if statm is None else {"proc/7/statm": statm}
    assert process_memory(7, write(tmp_path, process(7) | counts)) is None


def test_a_system_without_such_files_tells_nothing(tmp_path: Path) -> None:
    assert private_bytes([7], tmp_path) is None
    assert proportional_bytes(7, tmp_path) is None


def test_the_share_of_what_is_shared(tmp_path: Path) -> None:
    rollup = "5581-7ffc ---p 00000000 00:00 0   [rollup]\nRss:   4096 kB\nPss:   2048 kB\n"
    assert proportional_bytes(7, write(tmp_path, {"proc/7/smaps_rollup": rollup})) == 2 * MIB


@on_linux
def test_a_real_process_that_allocates_is_seen_to() -> None:
    code = f"data = bytearray(b'x') * {64 * MIB}; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        held = private_bytes([child.pid])
        share = proportional_bytes(child.pid)
        child.communicate(b"\n")
    assert held is not None
    assert share is not None
    assert 64 * MIB <= held < 128 * MIB
    assert 64 * MIB <= share < 128 * MIB
