"""A directory in memory that ends with its router, however that ends."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from llm_router_mw.errors import SnapshotError
from llm_router_mw.kv_store.folder import Folder
from llm_router_mw.kv_store.tier import UNLIMITED

try:
    import fcntl
except ImportError:  # not on Windows, which has no shared memory to be seen as files either
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("llm_router_mw.kv_store")

SHARED_MEMORY = "/dev/shm"
_LOCK_SUFFIX = ".lock"
_ATTEMPTS = 10
"""To lock a new file: others who begin as well may take it for a leftover, and remove it."""
_PAUSE_SECONDS = 0.01
"""Between two of them."""


class RamFolder:
    """A :class:`Folder` in shared memory. Who holds its lock lives; others' leftovers are removed.

    A system without shared memory as files has no such folder.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self._root = Path(root or SHARED_MEMORY)
        self._lock: int | None = None
        self._token = secrets.token_hex(4)
        user = os.geteuid() if hasattr(os, "geteuid") else 0
        self._ours = self._root / f"llm-router-mw-{user}"

    @property
    def folder(self) -> Folder:
        """The directory; a process that is forked has one of its own."""
        return Folder(self._ours / f"{os.getpid()}-{self._token}")

    @property
    def _lock_path(self) -> Path:
        path = self.folder.path
        return path.with_name(path.name + _LOCK_SUFFIX)

    def open(self) -> None:
        """Make the directory, and remove those of routers that are gone.

        Raises:
            SnapshotError: there is no shared memory, or somebody has taken the place.
        """
        if fcntl is None or not self._root.is_dir():
            raise SnapshotError(f"there is no shared memory at {self._root}")
        Folder(self._ours).prepare()
        for lock in sorted(self._ours.glob(f"*{_LOCK_SUFFIX}")):
            self._clean(lock)
        self._lock = self._own_lock()
        self.folder.prepare()

    @property
    def left_bytes(self) -> int:
        """What the file system has room for; containers have little, often."""
        try:
            about = os.statvfs(self._ours)
        except OSError:
            return 0
        # One without a limit says that it has no blocks at all.
        return about.f_bavail * about.f_frsize if about.f_blocks else UNLIMITED

    def close(self) -> None:
        """Remove the directory with all that is in it."""
        if self._lock is not None:
            self._remove(self._lock_path, self._lock)
            self._lock = None

    def _own_lock(self) -> int:
        for _ in range(_ATTEMPTS):
            if (descriptor := self._locked(self._lock_path)) is not None:
                return descriptor
            time.sleep(_PAUSE_SECONDS)
        raise SnapshotError(f"{self._ours} could not be locked")

    def _clean(self, lock: Path) -> None:
        descriptor = self._locked(lock)
        if descriptor is not None:
            self._remove(lock, descriptor)

    def _remove(self, lock: Path, descriptor: int) -> None:
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)

    def _locked(self, path: Path) -> int | None:
        """Return the locked file *path*; None if a living router has it, or has removed it."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
        return None
