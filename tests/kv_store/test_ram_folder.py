"""Directories in memory: gone with their router, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_router_mw.errors import SnapshotError
from llm_router_mw.kv_store import ram_folder
from llm_router_mw.kv_store.ram_folder import RamFolder
from llm_router_mw.kv_store.tier import UNLIMITED

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no shared memory")


def test_it_is_there_as_long_as_it_is_open(tmp_path: Path) -> None:
    folder = RamFolder(tmp_path)
    folder.open()
    (folder.folder.path / "x.kv").touch()
    folder.close()
    assert [each for each in tmp_path.rglob("*") if each.is_file() or each.name[0].isdigit()] == []
    folder.close()


def test_living_routers_leave_each_other_alone(tmp_path: Path) -> None:
    one, two = RamFolder(tmp_path), RamFolder(tmp_path)
    one.open()
    (one.folder.path / "x.kv").touch()
    two.open()
    assert (one.folder.path / "x.kv").exists()
    assert one.folder.path != two.folder.path
    one.close()
    assert two.folder.path.is_dir()
    two.close()


def test_a_process_that_is_forked_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RamFolder(tmp_path)
    folder.open()
    (folder.folder.path / "x.kv").touch()
    before = folder.folder.path
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert folder.folder.path != before
    # What it has inherited is not its own.
    folder.close()
    assert (before / "x.kv").exists()


def test_leftovers_of_a_router_that_was_killed_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from llm_router_mw.kv_store.ram_folder import RamFolder\n"
        "folder = RamFolder(sys.argv[1])\n"
        "folder.open()\n"
        "(folder.folder.path / 'x.kv').touch()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=30)
    assert list(tmp_path.rglob("x.kv"))
    folder = RamFolder(tmp_path)
    folder.open()
    assert list(tmp_path.rglob("x.kv")) == []
    folder.close()


def test_without_shared_memory_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SnapshotError, match="no shared memory"):
        RamFolder(tmp_path / "missing").open()
    monkeypatch.setattr(ram_folder, "fcntl", None)
    with pytest.raises(SnapshotError, match="no shared memory"):
        RamFolder(tmp_path).open()


def test_a_place_that_somebody_else_has_taken_is_not_used(tmp_path: Path) -> None:
    ours = RamFolder(tmp_path).folder.path.parent
    ours.mkdir(mode=0o700)
    ours.chmod(0o777)
    with pytest.raises(SnapshotError, match="others can look"):
        RamFolder(tmp_path).open()


def test_it_tells_how_much_more_fits(tmp_path: Path) -> None:
    folder = RamFolder(tmp_path)
    assert folder.left_bytes == 0
    folder.open()
    assert 0 < folder.left_bytes < 2**60
    folder.close()


def test_where_there_is_no_limit_anything_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((4096, 4096, *[0] * 8)))
    assert RamFolder(tmp_path).left_bytes == UNLIMITED


def test_a_lock_that_another_one_has_just_removed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = RamFolder(tmp_path), RamFolder(tmp_path)
    lock = folder.folder.path.with_name(f"{folder.folder.path.name}.lock")
    fcntl = pytest.importorskip("fcntl")
    flock = fcntl.flock
    removals = iter([True])

    def remove_first(descriptor: int, operation: int) -> None:
        if next(removals, False):
            lock.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    folder.open()
    other.open()
    assert folder.folder.path.is_dir()
    folder.close()
    other.close()


def test_a_lock_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    folder = RamFolder(tmp_path)
    lock = folder.folder.path.with_name(f"{folder.folder.path.name}.lock")
    lock.parent.mkdir(mode=0o700)
    lock.mkdir()
    with pytest.raises(SnapshotError, match="could not be locked"):
        folder.open()
