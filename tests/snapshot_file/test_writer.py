"""A snapshot is written whole, or not at all."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import (
    ALIGNMENT,
    open_snapshot,
    part_path,
    provide_memory,
    read_header,
    snapshot_bytes,
    snapshot_of,
    write_snapshot,
)
from llm_router_mw.types import Snapshot
from tests.support.snapshots import CHECKPOINT, STATE, TOKENS, failing_with, writer_of, written

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory comes as it is written")


def test_what_was_written_is_read(snapshot: Path) -> None:
    header = read_header(snapshot)
    assert (header.identity, header.key, header.tokens) == ("model A", "somebody", TOKENS)
    assert (header.n_tokens, header.created_at) == (5, 12.5)
    assert [(part.kind, part.length) for part in header.parts] == [("state", 5), ("checkpoint", 3)]
    with open_snapshot(snapshot) as opened:
        assert opened.header == header
        assert bytes(opened.part(0)) == STATE
        assert bytes(opened.part(1)) == CHECKPOINT


def test_what_is_told_of_it_has_no_tokens(tmp_path: Path) -> None:
    with writer_of(tmp_path / "x.kv") as writer:
        header = writer.finish()
    told = snapshot_of(tmp_path / "x.kv", header)
    assert told == Snapshot(
        path=str(tmp_path / "x.kv"),
        identity="model A",
        key="somebody",
        n_tokens=5,
        blocks=b"8 bytes!",
        size_bytes=header.size_bytes,
        created_at=12.5,
    )


def test_the_writer_returns_the_header_that_is_in_the_file(tmp_path: Path) -> None:
    header = written(tmp_path / "x.kv")
    assert read_header(tmp_path / "x.kv") == header
    assert header.size_bytes == (tmp_path / "x.kv").stat().st_size


def test_parts_lie_at_whole_pages(snapshot: Path) -> None:
    assert {part.offset % ALIGNMENT for part in read_header(snapshot).parts} == {0}


@pytest.mark.parametrize("n_tokens", [1, 5, 1000, 100_000])
def test_the_size_is_known_beforehand(tmp_path: Path, n_tokens: int) -> None:
    header = write_snapshot(
        tmp_path / "x.kv",
        [("state", n_tokens, STATE), ("checkpoint", 1, CHECKPOINT)],
        identity="model A " * 40,
        key="k" * 64,
        tokens=bytes(4 * n_tokens),
        blocks=bytes(8 * (n_tokens // 64)),
        created_at=1.0,
    )
    assert header.size_bytes == snapshot_bytes(n_tokens, [len(STATE), len(CHECKPOINT)])


def test_only_the_owner_may_read_it(snapshot: Path) -> None:
    assert stat.S_IMODE(snapshot.stat().st_mode) == 0o600


def test_the_parts_are_filled_in_place(tmp_path: Path) -> None:
    with writer_of(tmp_path / "x.kv") as writer:
        writer.part(0)[:] = STATE
        assert not (tmp_path / "x.kv").exists()
        writer.finish()
    with open_snapshot(tmp_path / "x.kv") as opened:
        assert bytes(opened.part(0)) == STATE


def test_a_writer_that_is_left_half_done_leaves_nothing(tmp_path: Path) -> None:
    with writer_of(tmp_path / "x.kv") as writer:
        writer.part(0)[:10] = STATE[:10]
        assert part_path(tmp_path / "x.kv").exists()
    assert list(tmp_path.iterdir()) == []


def test_memory_of_an_earlier_file_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "x.kv"
    part_path(path).write_bytes(b"old" * 100_000)
    inode = part_path(path).stat().st_ino
    header = written(path)
    assert path.stat().st_ino == inode
    assert path.stat().st_size == header.size_bytes
    with open_snapshot(path) as opened:
        assert bytes(opened.part(0)) == STATE


def test_nothing_is_left_of_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "x.kv"
    part_path(path).write_bytes(b"old" * 100_000)
    written(path)
    written(tmp_path / "fresh.kv")
    assert path.read_bytes() == (tmp_path / "fresh.kv").read_bytes()


@linux
def test_memory_that_was_provided_for_more_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "x.kv"
    with writer_of(path) as writer:
        provide_memory(path, 1 << 20)
        assert part_path(path).stat().st_size == 1 << 20
        header = writer.finish()
    assert path.stat().st_size == header.size_bytes


@linux
def test_memory_is_provided_under_what_is_written_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, size = tmp_path / "x.kv", (4 << 20) + 5
    unfinished = part_path(path)
    allocate = os.posix_fallocate

    def write_at_once(descriptor: int, offset: int, length: int) -> None:
        allocate(descriptor, offset, length)
        unfinished.write_bytes(b"x" * size)

    monkeypatch.setattr(os, "posix_fallocate", write_at_once)
    unfinished.touch()
    provide_memory(path, size)
    assert unfinished.read_bytes() == b"x" * size


@linux
def test_memory_is_provided_as_far_as_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provide_memory(tmp_path / "x.kv", 100)
    assert list(tmp_path.iterdir()) == []
    part_path(tmp_path / "x.kv").touch()
    monkeypatch.setattr(os, "posix_fallocate", failing_with(errno.ENOSPC))
    provide_memory(tmp_path / "x.kv", 100)
    assert part_path(tmp_path / "x.kv").stat().st_size == 0


def test_elsewhere_memory_comes_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    part_path(tmp_path / "x.kv").touch()
    provide_memory(tmp_path / "x.kv", 100)
    assert part_path(tmp_path / "x.kv").stat().st_size == 0


def test_a_snapshot_replaces_one_of_its_name_at_once(snapshot: Path) -> None:
    with open_snapshot(snapshot) as opened:
        write_snapshot(
            snapshot,
            [("state", 5, b"new")],
            identity="model A",
            key="somebody",
            tokens=TOKENS,
            created_at=13.0,
        )
        assert bytes(opened.part(0)) == STATE
    with open_snapshot(snapshot) as opened:
        assert bytes(opened.part(0)) == b"new"


# What cannot be written


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is not asked for beforehand")
def test_a_full_file_system_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing_with(errno.ENOSPC))
    with pytest.raises(SnapshotError, match="no room") as raised:
        writer_of(tmp_path / "x.kv")
    assert raised.value.out_of_space
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_the_header_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="too long"):
        write_snapshot(
            tmp_path / "x.kv",
            [("state", 5, STATE)],
            identity="x" * 20_000,
            key="somebody",
            tokens=TOKENS,
            created_at=1.0,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is not asked for beforehand")
def test_a_file_system_that_cannot_promise_room_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing_with(errno.EOPNOTSUPP))
    written(tmp_path / "x.kv")
    with open_snapshot(tmp_path / "x.kv") as opened:
        assert bytes(opened.part(0)) == STATE


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="No such file") as raised:
        writer_of(tmp_path / "no" / "x.kv")
    assert not raised.value.out_of_space


def test_a_file_that_cannot_be_renamed_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", failing_with(errno.EACCES))
    with (
        writer_of(tmp_path / "x.kv") as writer,
        pytest.raises(SnapshotError, match="Permission denied"),
    ):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_systems_without_linux_calls_do_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    written(tmp_path / "x.kv")
    with open_snapshot(tmp_path / "x.kv") as opened:
        assert bytes(opened.part(1)) == CHECKPOINT
