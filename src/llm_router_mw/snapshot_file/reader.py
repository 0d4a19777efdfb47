"""Reading a snapshot: nothing in it is believed before it was checked."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from xxhash import xxh3_64_digest

from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file.header import (
    MAGIC,
    MAX_HEADER_BYTES,
    PROLOGUE,
    VERSION,
    SnapshotHeader,
)
from llm_router_mw.snapshot_file.mapping import SAFE_FLAGS, map_file, unusable

_decoder = msgspec.msgpack.Decoder(SnapshotHeader)


def read_header(path: str | Path) -> SnapshotHeader:
    """Return the header of the snapshot at *path*, checked against the file's size.

    Raises:
        SnapshotError: it is missing, no snapshot, of another version, cut short or corrupted.
    """
    with _opened(Path(path)) as descriptor:
        return _header_of(descriptor, Path(path))


class OpenSnapshot:
    """A snapshot whose bytes are at hand as long as it is open."""

    def __init__(self, header: SnapshotHeader, mapping: mmap.mmap, name: str) -> None:
        self.header = header
        self._mapping = mapping
        self._name = name
        self._views: list[memoryview] = []

    def part(self, index: int) -> memoryview:
        """Return the bytes of the part at *index*; they must not be used once this is closed.

        Raises:
            SnapshotError: they are not what was written.
        """
        part = self.header.parts[index]
        view = memoryview(self._mapping)[part.offset : part.end]
        self._views.append(view)
        if xxh3_64_digest(view) != part.checksum:
            raise SnapshotError(f"the snapshot {self._name} is corrupted; it is of no use")
        return view

    def close(self) -> None:
        """Let go of the file."""
        for view in self._views:
            view.release()
        self._views = []
        self._mapping.close()


@contextmanager
def open_snapshot(path: str | Path) -> Iterator[OpenSnapshot]:
    """Map the snapshot at *path*: nothing is copied, and the parts are checked as they are read.

    Raises:
        SnapshotError: as :func:`read_header`.
    """
    path = Path(path)
    with _opened(path) as descriptor:
        header = _header_of(descriptor, path)
        try:
            mapping = map_file(descriptor, header.size_bytes, writable=False)
        except (OSError, ValueError) as error:
            raise SnapshotError(f"the snapshot {path.name} cannot be mapped: {error}") from error
    snapshot = OpenSnapshot(header, mapping, path.name)
    try:
        yield snapshot
    finally:
        snapshot.close()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | SAFE_FLAGS)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SnapshotError(f"the snapshot {path.name} is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _header_of(descriptor: int, path: Path) -> SnapshotHeader:
    def bad(reason: str) -> SnapshotError:
        return SnapshotError(f"the snapshot {path.name} {reason}; it is of no use")

    try:
        file_bytes = os.fstat(descriptor).st_size
        prologue = os.read(descriptor, PROLOGUE.size)
        if len(prologue) < PROLOGUE.size or not prologue.startswith(MAGIC):
            raise bad("does not begin as one")
        _, version, length, checksum = PROLOGUE.unpack(prologue)
        if version != VERSION:
            raise bad(f"is of version {version}, not {VERSION}")
        if length > min(MAX_HEADER_BYTES, file_bytes):
            raise bad("is cut short")
        body = os.read(descriptor, length)
    except OSError as error:
        raise unusable(path, error) from error
    if xxh3_64_digest(body) != checksum:
        raise bad("is corrupted")
    try:
        header = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise bad(f"has a header that cannot be read ({error})") from error
    if not header.is_sound:
        raise bad("contradicts itself")
    if header.size_bytes > file_bytes:
        raise bad("is cut short")
    return header
