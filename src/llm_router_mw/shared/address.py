"""Where the web processes that share a router find its host."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from msgspec import Struct

from llm_router_mw.errors import ConfigError
from llm_router_mw.runtime_directory import make_private, runtime_directory

CARD_SUFFIX, SOCKET_SUFFIX = ".host", ".sock"
_DIRECTORY = "shared"
_STEM_DIGITS = 12
_LARGEST_PID = 2**22
_PATH_BYTES = 103
"""Of a Unix socket: macOS takes no more, Linux four more."""


class Address(Struct, frozen=True):
    """Files in a directory that only this user may use, with one stem for all who meet there."""

    directory: str
    stem: str

    @property
    def socket(self) -> Path:
        """On which the host listens."""
        return self._file(SOCKET_SUFFIX)

    def socket_of(self, pid: int) -> Path:
        """On which process *pid* listens once it has made way for another host."""
        return self._file(f"-{pid}{SOCKET_SUFFIX}")

    @property
    def lock(self) -> Path:
        """Held by who starts a host, or replaces one."""
        return self._file(".lock")

    @property
    def log(self) -> Path:
        """Of the host that was started last."""
        return self._file(".log")

    def card_of(self, pid: int) -> Path:
        """Of the host that is process *pid*."""
        return self._file(f"-{pid}{CARD_SUFFIX}")

    def _file(self, suffix: str) -> Path:
        return Path(self.directory) / f"{self.stem}{suffix}"


def meeting_place() -> Path:
    """Return the directory in which all hosts of this user are found.

    Raises:
        ConfigError: there is none that only this user may use.
    """
    place = runtime_directory() / _DIRECTORY
    try:
        make_private(place.parent)
        make_private(place)
    except OSError as error:
        raise ConfigError(
            f"there is no place where the processes of a shared router could meet: {error}; set "
            "XDG_RUNTIME_DIR to a directory that only this user may use"
        ) from error
    return place


def address_of(name: str, folder: str) -> Address:
    """Return the address of those who share *name*, or without one the working directory *folder*.

    Raises:
        ConfigError: there is no place for it, or it has too long a name.
    """
    place = meeting_place()
    whose = f"name {name}" if name else f"folder {folder}"
    address = Address(str(place), hashlib.sha256(whose.encode()).hexdigest()[:_STEM_DIGITS])
    if len(os.fsencode(address.socket_of(_LARGEST_PID))) > _PATH_BYTES:
        raise ConfigError(
            f"{str(place)!r}, where the processes of a shared router meet, is too long for a "
            "socket's path; set XDG_RUNTIME_DIR to a shorter one"
        )
    return address
