"""What loads were seen to take, kept on disk for the next time."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

import msgspec
from msgspec import Struct, structs

from llm_router_mw.types import MeasuredMemory

logger = logging.getLogger("llm_router_mw.memory")

FILE_NAME = "observations.json"
_VERSION = 1
_MAX_ENTRIES = 500
"""The oldest are forgotten first."""


class Observation(Struct, frozen=True, kw_only=True):
    """What one kind of load took: the last breakdown, and the most that was seen of the rest."""

    memory: MeasuredMemory
    used_bytes: Mapping[str, int] = {}
    """What the process held of each device, by the router's ids."""

    def grown(self, later: Observation) -> Observation:
        """Return *later* with whatever was larger before."""
        before = self.memory
        return Observation(
            memory=structs.replace(
                later.memory,
                private_bytes=max(before.private_bytes, later.memory.private_bytes),
                peak_bytes=max(before.peak_bytes, later.memory.peak_bytes),
            ),
            used_bytes={
                device: max(self.used_bytes.get(device, 0), later.used_bytes.get(device, 0))
                for device in {**self.used_bytes, **later.used_bytes}
            },
        )


class _Content(Struct, frozen=True, kw_only=True):
    version: int
    entries: dict[str, Observation]


class ObservationStore:
    """A small file of observations by key. Safe to be used by several threads, and by several
    routers: none takes anything away that another has added.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = Lock()
        self._entries: dict[str, Observation] | None = None

    def get(self, key: str) -> Observation | None:
        """Return what was seen under *key*."""
        with self._lock:
            if self._entries is None:
                self._entries = self._read()
            return self._entries.get(key)

    def put(self, key: str, seen: Observation) -> Observation:
        """Remember *seen*, and return it with what was known before."""
        with self._lock:
            entries = {**(self._entries or {}), **self._read()}
            before = entries.pop(key, None)
            entries[key] = seen if before is None else before.grown(seen)
            self._entries = dict(list(entries.items())[-_MAX_ENTRIES:])
            self._write(self._entries)
            return entries[key]

    def _read(self) -> dict[str, Observation]:
        try:
            data = self._path.read_bytes()
            content = msgspec.json.decode(data, type=_Content)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("what was seen of earlier loads is lost: %s: %s", self._path, error)
            return {}
        return content.entries if content.version == _VERSION else {}

    def _write(self, entries: dict[str, Observation]) -> None:
        """Replace the file as a whole; without one it is all remembered until the router ends."""
        data = msgspec.json.encode(_Content(version=_VERSION, entries=entries))
        # Each writer has a file of its own until it is complete.
        draft = self._path.with_name(f".{FILE_NAME}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileNotFoundError):
                draft.unlink()
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
            draft.replace(self._path)
        except OSError as error:
            logger.warning("what loads take cannot be kept for later: %s", error)


def default_folder(environ: Mapping[str, str]) -> Path:
    """Return where a user's caches are kept."""
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llm-router-mw"
