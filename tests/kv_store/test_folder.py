"""Directories of snapshots: private, and never believed."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from llm_router_mw.errors import SnapshotError
from llm_router_mw.kv_store import folder as files
from llm_router_mw.kv_store.folder import Folder
from llm_router_mw.snapshot_file import open_snapshot, part_path
from tests.support.fake_handle import sequence, write

posix = pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")


@posix
def test_only_the_owner_can_look_into_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "deep" / "cache")
    folder.prepare()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.prepare()


@posix
def test_a_directory_that_others_can_look_into_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with pytest.raises(SnapshotError, match="chmod 700"):
        Folder(tmp_path).prepare()


@posix
def test_a_directory_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SnapshotError, match="another user"):
        Folder(tmp_path).prepare()


def test_a_link_is_refused_with_the_name_of_where_it_leads(tmp_path: Path) -> None:
    real = tmp_path / "real"
    (tmp_path / "link").symlink_to(real)
    for _ in ("dangling", "sound"):
        with pytest.raises(SnapshotError, match=f"symbolic link; .* leads: {re.escape(str(real))}"):
            Folder(tmp_path / "link").prepare()
        real.mkdir(mode=0o700, exist_ok=True)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SnapshotError, match="cannot be used"):
        Folder(tmp_path / "file").prepare()


def test_a_link_that_somebody_puts_there_meanwhile_is_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setattr(Path, "is_symlink", lambda path: False)
    with pytest.raises(SnapshotError, match="not a directory"):
        Folder(tmp_path / "link").prepare()


def test_what_is_in_it_is_read_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    told = write(folder.new_path("model A"), sequence(0, 1, 2), "model A")
    os.utime(told.path, (50.0, 50.0))
    assert folder.scan(known=()) == {told.path: (told, 50.0)}
    assert folder.scan(known=[told.path]) == {told.path: (None, 50.0)}


def test_what_is_no_good_is_removed_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path)
    Path(folder.new_path("model A")).write_bytes(b"no snapshot")
    cut = Path(write(folder.new_path("model A"), sequence(0, 1)).path)
    os.truncate(cut, cut.stat().st_size - 1)
    (tmp_path / "notes.txt").touch()
    assert folder.scan(known=()) == {}
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]
    assert len(caplog.records) == 2


def test_files_that_nobody_writes_any_more_are_removed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    fresh, stale = part_path(folder.new_path("a")), part_path(folder.new_path("a"))
    fresh.touch()
    stale.touch()
    os.utime(stale, (1.0, 1.0))
    assert folder.scan(known=()) == {}
    assert list(tmp_path.iterdir()) == [fresh]


@pytest.mark.parametrize("name", ["film.part", "x.kv", "x.kv.part", f"{0:012}-{0:016}.kv.old"])
def test_what_is_not_ours_stays_as_it_is(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (1.0, 1.0))
    assert Folder(tmp_path).scan(known=()) == {}
    assert (tmp_path / name).exists()
    assert not caplog.records


def test_a_file_that_vanishes_while_it_is_read_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path)
    path = Path(folder.new_path("a"))
    monkeypatch.setattr(folder, "_files", lambda: [path])
    assert folder.scan(known=()) == {}
    assert not caplog.records


def test_a_directory_that_has_vanished_is_empty(tmp_path: Path) -> None:
    assert Folder(tmp_path / "gone").scan(known=()) == {}


def test_removing_takes_what_is_unfinished_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.kv"
    path.touch()
    part_path(path).touch()
    files.remove([str(path)])
    assert list(tmp_path.iterdir()) == []
    files.remove([str(path)])
    assert not caplog.records
    path.mkdir()
    files.remove([str(path)])
    assert "cannot be removed" in caplog.text


def test_a_recycled_file_is_written_into_again(tmp_path: Path) -> None:
    old, new = tmp_path / "old.kv", str(tmp_path / "new.kv")
    old.write_bytes(bytes(10))
    inode = old.stat().st_ino
    files.recycle(str(old), new)
    told = write(new, sequence(0, 1))
    assert Path(told.path).stat().st_ino == inode
    files.recycle(str(old), new)  # it is gone: the next one gets fresh memory


@posix
def test_an_empty_file_is_private_and_never_somebody_elses(tmp_path: Path) -> None:
    path = str(tmp_path / "x.kv")
    files.create_empty(path)
    assert stat.S_IMODE(part_path(path).stat().st_mode) == 0o600
    part_path(path).write_bytes(b"there")
    files.create_empty(path)
    assert part_path(path).read_bytes() == b"there"


def test_a_copy_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = write(tmp_path / "x.kv", sequence(0, 1, 2))
    files.copy(told.path, str(tmp_path / "y.kv"))
    with open_snapshot(tmp_path / "y.kv") as opened:
        opened.part(0)
    assert stat.S_IMODE((tmp_path / "y.kv").stat().st_mode) == 0o600

    copy = shutil.copyfile

    def lose(source: str, target: Path) -> None:
        copy(source, target)
        os.rename(source, tmp_path / "w.kv")

    monkeypatch.setattr(shutil, "copyfile", lose)
    with pytest.raises(FileNotFoundError):
        files.copy(told.path, str(tmp_path / "z.kv"))
    os.rename(tmp_path / "w.kv", told.path)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(OSError, match="No space"):
        files.copy(told.path, str(tmp_path / "z.kv"))
    assert {each.name for each in tmp_path.iterdir()} == {"x.kv", "y.kv"}


def test_the_time_of_use_is_noted_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.kv"
    path.touch()
    files.touch(str(path), 77.0)
    assert path.stat().st_mtime == 77.0
    files.touch(str(tmp_path / "gone"), 77.0)
