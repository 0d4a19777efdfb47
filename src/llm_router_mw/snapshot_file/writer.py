"""Writing a snapshot: whole, or not at all."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec.structs import replace
from xxhash import xxh3_64_digest

from llm_router_mw.snapshot_file.header import (
    PartKind,
    SnapshotHeader,
    SnapshotPart,
    encode_header,
    laid_out,
)
from llm_router_mw.snapshot_file.mapping import SAFE_FLAGS, map_file, part_path, unusable


class SnapshotWriter:
    """A snapshot in the making: fill its parts in place, then ``finish`` it.

    Leaving it as a context manager before that removes what was written. Where a file of that
    name and :data:`PART_SUFFIX` exists its memory is used again.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        identity: str,
        key: str,
        tokens: bytes,
        blocks: bytes,
        parts: Sequence[tuple[PartKind, int, int]],
        created_at: float,
    ) -> None:
        """Make room for *parts*: of each its kind, length in tokens and size in bytes.

        Raises:
            SnapshotError: there is no room (``out_of_space``), or the file cannot be made.
        """
        self._path = Path(path)
        self._unfinished = part_path(self._path)
        header = SnapshotHeader(
            identity=identity,
            key=key,
            tokens=tokens,
            blocks=blocks,
            parts=tuple(SnapshotPart(*part) for part in parts),
            created_at=created_at,
        )
        self._header = laid_out(header)
        encode_header(self._header)  # too long a header is told before anything is written
        self._views: list[memoryview] = []
        self._mapping = self._mapped(self._header.size_bytes)

    def part(self, index: int) -> memoryview:
        """Return the memory of the part at *index*, to be written. Gone after ``finish``."""
        part = self._header.parts[index]
        view = memoryview(self._mapping)[part.offset : part.end]
        self._views.append(view)
        return view

    def finish(self) -> SnapshotHeader:
        """Check sums, write the header and give the file its name; any thread may do this.

        Raises:
            SnapshotError: the file cannot be renamed; nothing is left of it.
        """
        sums = [self._sum(part) for part in self._header.parts]
        self._header = replace(self._header, parts=tuple(sums))
        prologue = encode_header(self._header)
        self._mapping[: len(prologue)] = prologue
        self._blank(len(prologue))
        self._close()
        try:
            # Memory may have been provided for more.
            os.truncate(self._unfinished, self._header.size_bytes)
            os.replace(self._unfinished, self._path)
        except OSError as error:
            self.discard()
            raise unusable(self._path, error) from error
        return self._header

    def discard(self) -> None:
        """Remove what was written, unless it is finished."""
        self._close()
        with suppress(OSError):
            self._unfinished.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def _sum(self, part: SnapshotPart) -> SnapshotPart:
        with memoryview(self._mapping)[part.offset : part.end] as view:
            return replace(part, checksum=xxh3_64_digest(view))

    def _blank(self, end: int) -> None:
        """Write zeros between the parts: something of the text may be there whose memory it was."""
        for part in self._header.parts:
            self._mapping[end : part.offset] = bytes(part.offset - end)
            end = part.end

    def _close(self) -> None:
        for view in self._views:
            view.release()
        self._views = []
        self._mapping.close()

    def _mapped(self, size: int) -> mmap.mmap:
        flags = os.O_RDWR | os.O_CREAT | SAFE_FLAGS
        try:
            descriptor = os.open(self._unfinished, flags, 0o600)
        except OSError as error:
            raise unusable(self._path, error) from error
        try:
            _resize(descriptor, size)
            return map_file(descriptor, size, writable=True)
        except OSError as error:
            with suppress(OSError):
                self._unfinished.unlink()
            raise unusable(self._path, error) from error
        finally:
            os.close(descriptor)


def write_snapshot(
    path: str | Path,
    parts: Sequence[tuple[PartKind, int, bytes | bytearray | memoryview]],
    *,
    identity: str,
    key: str,
    tokens: bytes,
    blocks: bytes = b"",
    created_at: float,
) -> SnapshotHeader:
    """Write *parts*, each a kind, a length in tokens and its bytes, as a snapshot at *path*.

    Raises:
        SnapshotError: there is no room (``out_of_space``), or the file cannot be made.
    """
    sizes: list[tuple[PartKind, int, int]] = [
        (kind, length, len(memoryview(data).cast("B"))) for kind, length, data in parts
    ]
    with SnapshotWriter(
        path,
        identity=identity,
        key=key,
        tokens=tokens,
        blocks=blocks,
        parts=sizes,
        created_at=created_at,
    ) as writer:
        for index, (_, _, data) in enumerate(parts):
            writer.part(index)[:] = memoryview(data).cast("B")
        return writer.finish()


def _resize(descriptor: int, size: int) -> None:
    os.ftruncate(descriptor, size)
    if sys.platform == "linux":
        try:
            # Else a full file system would be seen only as the end of the process that writes.
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not every one can tell
                raise
