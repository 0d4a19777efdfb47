"""A snapshot is not believed when something is off."""

from __future__ import annotations

import errno
import mmap
import os
import struct
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from xxhash import xxh3_64_digest

from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import (
    SnapshotPart,
    open_snapshot,
    part_path,
    read_header,
)
from tests.support.snapshots import STATE, TOKENS, failing_with, written


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="No such file"):
        read_header(tmp_path / "x.kv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_does_not_block_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.kv")
    with pytest.raises(SnapshotError, match="not a regular file"):
        read_header(tmp_path / "x.kv")


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links are followed here")
def test_a_link_is_not_followed(tmp_path: Path, snapshot: Path) -> None:
    (tmp_path / "link.kv").symlink_to(snapshot)
    with pytest.raises(SnapshotError):
        read_header(tmp_path / "link.kv")
    part_path(tmp_path / "y.kv").symlink_to(snapshot)
    with pytest.raises(SnapshotError):
        written(tmp_path / "y.kv")
    part_path(tmp_path / "y.kv").unlink()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not begin"),
        (b"LLMRKV", "does not begin"),
        (b"GGUF" + bytes(100), "does not begin"),
        (b"LLMRKV\r\n" + bytes(100), "version 0"),
    ],
)
def test_something_else_is_no_snapshot(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.kv").write_bytes(content)
    with pytest.raises(SnapshotError, match=reason):
        read_header(tmp_path / "x.kv")


@pytest.mark.parametrize("left", [30, 200, 4096, 5000, -1])
def test_a_file_that_was_cut_short_is_refused(snapshot: Path, left: int) -> None:
    size = snapshot.stat().st_size
    os.truncate(snapshot, left % size)
    with pytest.raises(SnapshotError, match=r"cut short|corrupted"):
        read_header(snapshot)


def test_a_changed_header_is_refused(snapshot: Path) -> None:
    change(snapshot, 40)
    with pytest.raises(SnapshotError, match="corrupted"), open_snapshot(snapshot):
        pass


def test_a_changed_part_is_refused_when_it_is_read(snapshot: Path) -> None:
    change(snapshot, read_header(snapshot).parts[1].offset)
    with open_snapshot(snapshot) as opened:
        assert bytes(opened.part(0)) == STATE
        with pytest.raises(SnapshotError, match="corrupted"):
            opened.part(1)


def change(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def with_header(path: Path, body: bytes, length: int | None = None) -> None:
    """Give the snapshot at *path* a header with a good checksum."""
    data = bytearray(path.read_bytes())
    length = len(body) if length is None else length
    data[:24] = struct.pack("<8sII8s", b"LLMRKV\r\n", 1, length, xxh3_64_digest(body))
    data[24 : 24 + len(body)] = body
    path.write_bytes(data)


@pytest.mark.parametrize("body", [b"\xff", b"\x80", msgspec.msgpack.encode({"identity": 3})])
def test_a_header_of_another_shape_is_refused(snapshot: Path, body: bytes) -> None:
    with_header(snapshot, body)
    with pytest.raises(SnapshotError, match="cannot be read"):
        read_header(snapshot)


def test_a_header_that_claims_to_be_huge_is_not_read(snapshot: Path) -> None:
    with_header(snapshot, b"", length=2**31)
    with pytest.raises(SnapshotError, match="cut short"):
        read_header(snapshot)


def part(kind: str = "state", length: int = 5, size: int = 10, offset: int = 12288) -> SnapshotPart:
    return SnapshotPart(kind, length, size, offset)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (part("checkpoint"),),
        (part(length=4),),
        (part(size=0),),
        (part(offset=0),),
        (part(offset=12289),),
        (part(size=-4096),),
        (part(), part()),
        (part(), part(offset=16384)),
        (part(), part("checkpoint", length=6, offset=16384)),
        (part(), part("checkpoint", length=0, offset=16384)),
        (part(), *[part("checkpoint", offset=4096 * (4 + i), length=1) for i in range(64)]),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    snapshot: Path, parts: tuple[SnapshotPart, ...]
) -> None:
    with_header(snapshot, msgspec.msgpack.encode(replace(read_header(snapshot), parts=parts)))
    with pytest.raises(SnapshotError, match="contradicts itself"):
        read_header(snapshot)


@pytest.mark.parametrize("tokens", [b"", TOKENS[:-1]])
def test_tokens_that_are_none_are_refused(snapshot: Path, tokens: bytes) -> None:
    header = replace(read_header(snapshot), tokens=tokens)
    with_header(snapshot, msgspec.msgpack.encode(header))
    with pytest.raises(SnapshotError, match="contradicts itself"):
        read_header(snapshot)


def test_a_part_beyond_the_end_is_refused(snapshot: Path) -> None:
    header = replace(read_header(snapshot), parts=(part(size=2**40),))
    with_header(snapshot, msgspec.msgpack.encode(header))
    with pytest.raises(SnapshotError, match="cut short"):
        read_header(snapshot)


def test_a_file_that_cannot_be_read_is_refused(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "read", failing_with(errno.EIO))
    with pytest.raises(SnapshotError, match="cannot be used"):
        read_header(snapshot)


def test_a_file_that_cannot_be_mapped_is_refused(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(SnapshotError, match="cannot be mapped"), open_snapshot(snapshot):
        pass
