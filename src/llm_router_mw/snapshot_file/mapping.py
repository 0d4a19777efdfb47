"""Opening and mapping snapshots, the same way for those who write and those who read them."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from llm_router_mw.errors import SnapshotError

PART_SUFFIX: Final = ".part"
"""Of a file that is being written."""
# A link or a pipe that somebody put there is not followed, nor waited for.
SAFE_FLAGS: Final = (
    getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ACCESS: Final = {True: mmap.ACCESS_WRITE, False: mmap.ACCESS_READ}
_AT_ONCE_BYTES: Final = 4 * 2**20
"""So much is mapped in about a millisecond, for which other threads stand still."""


def part_path(path: str | Path) -> Path:
    """Return under which name the snapshot *path* is written."""
    path = Path(path)
    return path.with_name(path.name + PART_SUFFIX)


def map_file(descriptor: int, size: int, *, writable: bool) -> mmap.mmap:
    """Map *size* bytes of a file; all that is written goes to it."""
    if sys.platform == "linux":
        # One call for all pages: a fault for each of them takes six times as long.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        return mmap.mmap(descriptor, size, flags, access)
    return mmap.mmap(descriptor, size, access=_ACCESS[writable])


def provide_memory(path: str | Path, size: int) -> None:
    """Give the unfinished snapshot *path*, if it is there, *size* bytes of memory to be written to.

    What it holds stays, also what another thread writes to it meanwhile. If there is no room, who
    writes will see it, and say so.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, ValueError), part_path(path).open("r+b", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, size)
        # Looking at pages is enough to have the system make them, and harms nobody.
        for offset in range(0, size, _AT_ONCE_BYTES):
            length = min(_AT_ONCE_BYTES, size - offset)
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            mmap.mmap(file.fileno(), length, flags, mmap.PROT_READ, offset=offset).close()


def unusable(path: Path, error: OSError) -> SnapshotError:
    """Return the error that says what *error* means for the snapshot *path*."""
    if error.errno in _FULL:
        message = f"there is no room for the snapshot {path.name}: {error.strerror}"
        return SnapshotError(message, out_of_space=True)
    return SnapshotError(f"the snapshot {path.name} cannot be used: {error.strerror}")
