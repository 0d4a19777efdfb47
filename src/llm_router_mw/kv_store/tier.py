"""What is kept in one place, memory or disk, and what has to go first. Pure: touches no file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from llm_router_mw.types import SequenceInfo, Snapshot

UNLIMITED: Final = 2**62
"""Bytes that nothing has."""


@dataclass(slots=True, eq=False)
class Entry:
    """A snapshot that is kept."""

    snapshot: Snapshot
    used_at: float
    """Unix time at which somebody last went on with that conversation."""
    compute_seconds: float | None = None
    """What computing it again would take; None if unknown."""

    @property
    def path(self) -> str:
        return self.snapshot.path

    @property
    def size_bytes(self) -> int:
        return self.snapshot.size_bytes


class Tier:
    """The index of one place, and its budget."""

    def __init__(self, name: str, limit_bytes: int, room: Callable[[], int]) -> None:
        """Keep *limit_bytes* at most, and never grow by more than *room* returns."""
        self.name = name
        self.limit_bytes = limit_bytes
        self._room = room
        self._entries: dict[str, Entry] = {}
        self._reserved: dict[str, int] = {}

    def __iter__(self) -> Iterator[Entry]:
        """Return the entries, longest unused first."""
        return iter(sorted(self._entries.values(), key=lambda entry: entry.used_at))

    def get(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def of(self, identity: str) -> list[Entry]:
        """Return the entries that an instance of *identity* can go on from."""
        return [each for each in self._entries.values() if each.snapshot.identity == identity]

    def covering(self, identity: str, other: Snapshot | SequenceInfo) -> Entry | None:
        """Return an entry that holds all of *other*, for an instance of *identity*."""
        return next((each for each in self.of(identity) if each.snapshot.covers(other)), None)

    def covered_by(self, identity: str, other: Snapshot | SequenceInfo) -> list[Entry]:
        """Return the entries that are needless beside *other*."""
        return [
            each
            for each in self.of(identity)
            if each.snapshot.key == other.key
            and each.snapshot.blocks
            and other.blocks.startswith(each.snapshot.blocks)
            and each.path != getattr(other, "path", None)
        ]

    @property
    def used_bytes(self) -> int:
        """Bytes of all entries, and of what is reserved."""
        kept = sum(entry.size_bytes for entry in self._entries.values())
        return kept + sum(self._reserved.values())

    @property
    def left_bytes(self) -> int:
        """By how much it may grow; below 0 if it has grown too far."""
        return min(self.limit_bytes - self.used_bytes, self._room())

    def victims(
        self, needed: int, used_at: float, first: Iterable[Entry] = ()
    ) -> list[Entry] | None:
        """Return what has to go so that *needed* bytes fit that were last used at *used_at*.

        *First* those, then what was not used for longest, but nothing that was used later. None
        if that is not enough.
        """
        left = self.left_bytes
        chosen: list[Entry] = []
        preferred = list(first)
        older = [each for each in self if each.used_at <= used_at and each not in preferred]
        for entry in [*preferred, *older]:
            if left >= needed:
                break
            chosen.append(entry)
            left += entry.size_bytes
        return chosen if left >= needed else None

    def oldest(self, n_bytes: int) -> list[Entry]:
        """Return the entries, longest unused first, that free *n_bytes*, or all there are."""
        chosen: list[Entry] = []
        for entry in self:
            if n_bytes <= 0:
                break
            chosen.append(entry)
            n_bytes -= entry.size_bytes
        return chosen

    def expired(self, before: float) -> list[Entry]:
        """Return the entries that were last used before that time."""
        return [entry for entry in self if entry.used_at < before]

    def reserve(self, path: str, n_bytes: int) -> None:
        """Count *n_bytes* as taken until *path* is added or released."""
        self._reserved[path] = n_bytes

    def release(self, path: str) -> None:
        """Give back what was reserved for *path*; harmless if nothing is."""
        self._reserved.pop(path, None)

    def add(self, entry: Entry) -> None:
        """Keep *entry*."""
        self.release(entry.path)
        self._entries[entry.path] = entry

    def remove(self, path: str) -> Entry | None:
        """Forget what is in *path*, and return it."""
        return self._entries.pop(path, None)
