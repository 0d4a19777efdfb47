"""The snapshots that the router has offered, and the spare files that it has handed out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llm_router_mw.engine.blocks import BLOCK_TOKENS, Beginning, common_blocks, hashed_key
from llm_router_mw.engine.model import Rewind
from llm_router_mw.engine.slots import CacheKey
from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import SnapshotHeader, read_header, snapshot_of
from llm_router_mw.types import Snapshot, Spare
from llm_router_mw.wire import SnapshotBad, SnapshotKept, SnapshotNews

logger = logging.getLogger("llm_router_mw.engine")


@dataclass(frozen=True, slots=True)
class Rewinding:
    """Where sequences of the model can be cut short."""

    rewind: Rewind
    n_window: int

    def resume(self, header: SnapshotHeader, length: int) -> tuple[int, int | None]:
        """Return how many of the first *length* tokens of a snapshot can be gone on from.

        Beside that the number of the part that has to be restored first; None if none has.
        """
        if length == header.n_tokens or self.rewind is Rewind.ANYWHERE:
            return length, None
        if self.rewind is Rewind.WINDOW and header.n_tokens <= self.n_window:
            return length, None
        usable = [
            (part.length, index)
            for index, part in enumerate(header.parts)
            if part.kind == "checkpoint" and part.length <= length
        ]
        return max(usable, default=(0, None))


@dataclass(frozen=True, slots=True)
class Found:
    """A snapshot whose first ``length`` tokens a request begins with."""

    snapshot: Snapshot
    length: int
    checkpoint: int | None
    """Part that has to be restored after the state; None if none has."""


class Offers:
    """What there is beside the context. Outlasts the context, and the model's sleep."""

    def __init__(self, tell: Callable[[SnapshotNews], None]) -> None:
        """Begin with nothing; *tell* hears what becomes of the files."""
        self.tell = tell
        self.identity = ""
        """Of the instance; while it is empty nothing is saved or restored."""
        self._snapshots: dict[str, Snapshot] = {}
        self._headers: dict[str, SnapshotHeader] = {}
        """Of those that were looked at."""
        self._spares: dict[str, Spare] = {}

    def offer(self, snapshots: Iterable[Snapshot], spares: Iterable[Spare]) -> None:
        """Use *snapshots*, those of this identity, and *spares* too from now on."""
        if not self.identity:
            return
        for snapshot in snapshots:
            if snapshot.identity == self.identity:
                self._forget(snapshot.path)
                self._snapshots[snapshot.path] = snapshot
        for spare in spares:
            self._spares[spare.path] = spare

    def withdraw(self, paths: Iterable[str]) -> None:
        """Use what is in *paths* no more."""
        for path in paths:
            self._forget(path)
            self._spares.pop(path, None)

    def _forget(self, path: str) -> None:
        self._snapshots.pop(path, None)
        self._headers.pop(path, None)

    def reject(self, path: str, reason: str) -> None:
        """The snapshot in *path* is of no use, or could not be written there."""
        logger.warning("a conversation has to be computed again: %s", reason)
        self._forget(path)
        self.tell(SnapshotBad(path, reason))

    def knows(self, key: CacheKey) -> bool:
        """Whether there is any snapshot of *key*."""
        if not self._snapshots:
            return False
        text = hashed_key(key)
        return any(snapshot.key == text for snapshot in self._snapshots.values())

    def covers(self, key: str, blocks: bytes) -> bool:
        """Whether some snapshot begins with all *blocks* of a sequence."""
        return any(
            snapshot.key == key and snapshot.blocks.startswith(blocks)
            for snapshot in self._snapshots.values()
        )

    def find(
        self, beginning: Beginning, limit: int, better_than: int, rewinding: Rewinding
    ) -> Found | None:
        """Return the snapshot that spares most of *beginning*, up to *limit* tokens.

        None if none spares more than *better_than*. Files that cannot be read are rejected.
        """
        best: Found | None = None
        for most, snapshot in self._promising(beginning):
            if min(most, limit) <= better_than:
                break
            found = self._look(snapshot, beginning, limit, rewinding)
            if found is not None and found.length > better_than:
                best, better_than = found, found.length
        return best

    def _promising(self, beginning: Beginning) -> list[tuple[int, Snapshot]]:
        """Return the snapshots with how much each may have in common at most, best first."""
        scored = []
        for snapshot in self._snapshots.values():
            if snapshot.key == beginning.key:
                common = common_blocks(snapshot.blocks, beginning.blocks)
                most = min((common + 1) * BLOCK_TOKENS - 1, snapshot.n_tokens)
                scored.append((most, snapshot))
        scored.sort(key=lambda each: (-each[0], each[1].n_tokens))
        return scored

    def _look(
        self, snapshot: Snapshot, beginning: Beginning, limit: int, rewinding: Rewinding
    ) -> Found | None:
        try:
            header = self.header(snapshot)
        except SnapshotError as error:
            self.reject(snapshot.path, str(error))
            return None
        common = min(beginning.common(header.blocks, header.tokens), limit)
        length, checkpoint = rewinding.resume(header, common)
        return Found(snapshot, length, checkpoint)

    def header(self, snapshot: Snapshot) -> SnapshotHeader:
        """Return the header of *snapshot*, from its file.

        Raises:
            SnapshotError: it cannot be read, or is of another model or user than was said.
        """
        header = self._headers.get(snapshot.path)
        if header is None:
            header = read_header(snapshot.path)
            if header.identity != self.identity:
                raise SnapshotError("it was made with another model or other settings")
            if snapshot_of(snapshot.path, header) != snapshot:
                raise SnapshotError("it is not the one that was offered")
            self._headers[snapshot.path] = header
        return header

    @property
    def has_spares(self) -> bool:
        return bool(self._spares)

    def spare(self, size_bytes: int) -> Spare | None:
        """Return the smallest spare that may take so much; None if there is none."""
        fitting = [spare for spare in self._spares.values() if spare.limit_bytes >= size_bytes]
        return min(fitting, key=lambda spare: spare.limit_bytes, default=None)

    def spend(self, spare: Spare) -> None:
        """*spare* is being written."""
        self._spares.pop(spare.path, None)

    def kept(self, snapshot: Snapshot) -> None:
        """A spare has become *snapshot*."""
        self._snapshots[snapshot.path] = snapshot
        self.tell(SnapshotKept(snapshot))
