"""A private directory of snapshots. All of this touches files and belongs into a thread."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import PART_SUFFIX, part_path, read_header, snapshot_of
from llm_router_mw.types import Snapshot

logger = logging.getLogger("llm_router_mw.kv_store")

SUFFIX = ".kv"
_OURS: Final = re.compile(rf"[0-9a-f]{{12}}-[0-9a-f]{{16}}{re.escape(SUFFIX)}")
"""Names as :meth:`Folder.new_path` makes them; no others are looked at, or removed."""
_STALE_SECONDS = 3600.0
"""A file that is still being written after so long is not being written any more."""


class Folder:
    """The files in one directory; nobody but the owner can read them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def prepare(self) -> None:
        """Make the directory where there is none.

        Raises:
            SnapshotError: it is not ours alone, or cannot be made.
        """
        if self.path.is_symlink():
            # Whoever may change the link could have conversations put elsewhere.
            raise SnapshotError(
                f"{self.path} is a symbolic link; name the directory to which it leads: "
                f"{os.path.realpath(self.path)}"
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = self.path.lstat()
        except OSError as error:
            raise SnapshotError(f"{self.path} cannot be used: {error.strerror}") from error
        if not stat.S_ISDIR(about.st_mode):
            raise SnapshotError(f"{self.path} is not a directory")
        if hasattr(os, "geteuid") and about.st_uid != os.geteuid():
            raise SnapshotError(f"{self.path} belongs to another user")
        if os.name == "posix" and about.st_mode & 0o077:
            raise SnapshotError(f"others can look into {self.path}; run 'chmod 700' on it")

    def new_path(self, identity: str) -> str:
        """Return a path for a snapshot of *identity* that nothing else has."""
        about = sha256(identity.encode()).hexdigest()[:12]
        return str(self.path / f"{about}-{secrets.token_hex(8)}{SUFFIX}")

    def scan(self, known: Iterable[str]) -> dict[str, tuple[Snapshot | None, float]]:
        """Return what is in the directory: snapshots by path, and when they were last used.

        Those *known* are not read again: None. What is no good is removed, with a warning.
        """
        known = set(known)
        found: dict[str, tuple[Snapshot | None, float]] = {}
        for path in self._files():
            if path.suffix == PART_SUFFIX:
                self._remove_stale(path)
                continue
            with suppress(OSError):  # gone meanwhile: another router uses the directory too
                if str(path) in known:
                    found[str(path)] = None, path.stat().st_mtime
                elif (read := _read(path)) is not None:
                    found[str(path)] = read
        return found

    def _files(self) -> list[Path]:
        try:
            files = sorted(self.path.iterdir())
        except OSError as error:
            logger.warning("saved conversations cannot be listed: %s", error.strerror)
            return []
        return [path for path in files if _OURS.fullmatch(path.name.removesuffix(PART_SUFFIX))]

    def _remove_stale(self, path: Path) -> None:
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _read(path: Path) -> tuple[Snapshot, float] | None:
    try:
        header = read_header(path)
    except SnapshotError as error:
        if path.exists():
            logger.warning("a saved conversation is removed: %s", error)
            path.unlink()
        return None
    return snapshot_of(path, header), path.stat().st_mtime


def saved_in(path: str | Path) -> list[tuple[Snapshot, float]]:
    """Return the sound snapshots in a directory and when they were used; changes nothing."""
    found: list[tuple[Snapshot, float]] = []
    for each in sorted(Path(path).glob(f"*{SUFFIX}")):
        with suppress(SnapshotError, OSError):
            found.append((snapshot_of(each, read_header(each)), each.stat().st_mtime))
    return found


def remove(paths: Iterable[str]) -> None:
    """Remove snapshots, finished or not; those that are gone are no error."""
    for path in paths:
        # In this order: a worker that renames the one to the other just now is caught as well.
        for each in (part_path(path), Path(path)):
            try:
                each.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("a saved conversation cannot be removed: %s", error)


def recycle(path: str, new_path: str) -> None:
    """Give the memory of the snapshot *path* to one that will be written in *new_path*."""
    with suppress(OSError):  # then it is written into fresh memory
        os.replace(path, part_path(new_path))


def create_empty(path: str) -> None:
    """Make the file in which the snapshot *path* will be written."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    with suppress(OSError):
        os.close(os.open(part_path(path), flags, 0o600))


def copy(source: str, target: str) -> None:
    """Copy a snapshot; *target* is there whole, or not at all.

    Raises:
        OSError: it cannot be copied.
    """
    unfinished = part_path(target)
    create_empty(target)
    try:
        shutil.copyfile(source, unfinished)
        # One that is gone by now may have been written over while it was read.
        os.stat(source)
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def touch(path: str, used_at: float) -> None:
    """Note in the file system when the snapshot *path* was used, for routers to come."""
    with suppress(OSError):
        os.utime(path, (used_at, used_at))
