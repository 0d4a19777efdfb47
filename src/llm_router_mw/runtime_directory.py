"""Where the processes of one user on one machine meet, and files that they lock there.

A lock is the kernel's: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: files cannot be locked there in this way
    fcntl = None  # type: ignore[assignment]

_NAME = "llm-router-mw"
_DRAFT = ".draft"


def runtime_directory() -> Path:
    """Return where the processes of this user meet: the same for all of them."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    for folder in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}"):
        if folder and os.path.isdir(folder):
            return Path(folder) / _NAME
    return Path(tempfile.gettempdir()) / f"{_NAME}-{user}"


def make_private(directory: Path) -> None:
    """Make *directory*; raises OSError if that is impossible, or if others may use it."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    about = directory.lstat()
    if fcntl is None:
        return
    shared = about.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or shared:
        raise PermissionError(f"{str(directory)!r} is not a directory that only this user may use")


def can_lock() -> bool:
    """Whether this system has such locks."""
    return fcntl is not None


def try_lock(descriptor: int) -> bool:
    """Lock the open file exclusively if nobody else has; return whether that worked.

    Where files cannot be locked it always does.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def put_locked(file: Path, content: bytes) -> int:
    """Make *file*, locked for as long as the descriptor that is returned is open."""
    draft = file.with_suffix(_DRAFT)
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    # Locked and complete before it has its name: others never see it otherwise.
    try_lock(descriptor)
    os.write(descriptor, content)
    os.replace(draft, file)
    return descriptor


def is_held(file: Path) -> bool:
    """Whether somebody who lives has *file* locked; removes it if not.

    Raises:
        FileNotFoundError: it has been removed already.
    """
    descriptor = os.open(file, os.O_RDWR)
    try:
        if try_lock(descriptor):
            file.unlink(missing_ok=True)
            return False
        return True
    finally:
        os.close(descriptor)
