"""A tier and the directory where its files are: the two change together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

import anyio
import anyio.to_thread
import msgspec

from llm_router_mw.kv_store import folder as files
from llm_router_mw.kv_store.folder import Folder
from llm_router_mw.kv_store.offered import Offered
from llm_router_mw.kv_store.speed import Speed
from llm_router_mw.kv_store.tier import Entry, Tier
from llm_router_mw.protocols import InstanceHandle

logger = logging.getLogger("llm_router_mw.kv_store")

_PAUSE_SECONDS = 60.0
"""For so long nothing is tried where there was no room in the file system."""


class Place:
    """Where snapshots are kept. All methods are for the router's loop; files wait in threads."""

    def __init__(
        self,
        tier: Tier,
        folder: Folder,
        speed: Speed,
        offered: Offered,
        clock: Callable[[], float],
        on_change: Callable[[], None],
    ) -> None:
        """Keep the files of *tier* in *folder*; *on_change* hears when it takes more or less."""
        self.tier = tier
        self.folder = folder
        self.speed = speed
        self._offered = offered
        self._clock = clock
        self._on_change = on_change
        self._full_until = 0.0

    @property
    def is_full(self) -> bool:
        """Whether its file system had no room a moment ago."""
        return self._clock() < self._full_until

    def is_found_full(self) -> None:
        """Try nothing here for a while."""
        self._full_until = self._clock() + _PAUSE_SECONDS

    async def reserve(
        self,
        identity: str,
        n_bytes: int,
        used_at: float,
        *,
        needless: Iterable[Entry] = (),
        writer: InstanceHandle | None = None,
    ) -> str | None:
        """Return a path for a snapshot of *n_bytes* that was last used at *used_at*.

        Entries that are *needless* then, or were used earlier, make room; the memory of one of them
        is used again if no worker but *writer* may be reading it. None if there is no room.
        """
        needless = list(needless)
        victims = self.tier.victims(n_bytes, used_at, needless)
        if victims is None:
            return None
        path = self.folder.new_path(identity)
        self.tier.reserve(path, n_bytes)
        try:
            await self._make_room(path, victims, needless, writer)
        except BaseException:
            await self.release(path)
            raise
        self._on_change()
        return path

    async def _make_room(
        self,
        path: str,
        victims: list[Entry],
        needless: list[Entry],
        writer: InstanceHandle | None,
    ) -> None:
        donor = None
        if writer is not None:
            free = [
                entry
                for entry in {*victims, *needless}
                if not self._offered.know(entry.path, besides=writer)
            ]
            donor = max(free, key=lambda entry: entry.size_bytes, default=None)
        if donor is not None:
            self._forget([donor])
            await anyio.to_thread.run_sync(files.recycle, donor.path, path)
        await self.discard(entry for entry in victims if entry is not donor)

    def keep(self, entry: Entry) -> None:
        """Take the file of *entry*, for which there is a reservation or not, as what is kept."""
        self.tier.add(entry)
        self._on_change()

    async def release(self, path: str) -> None:
        """Give back a reservation, and whatever was written for it."""
        self.tier.release(path)
        await self._remove([path])

    async def discard(self, entries: Iterable[Entry]) -> None:
        """Remove *entries*; no worker uses them from now on."""
        gone = self._forget(entries)
        if gone:
            await self._remove(gone)

    def _forget(self, entries: Iterable[Entry]) -> list[str]:
        paths = [entry.path for entry in entries if self.tier.remove(entry.path)]
        self._offered.withdraw(paths)
        return paths

    async def _remove(self, paths: list[str]) -> None:
        # Even if this is cut off the files must go: nobody knows of them any more.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(files.remove, paths)
        self._on_change()

    async def scan(self) -> None:
        """Take in what others have put into the directory, and forget what they have removed."""
        before = [entry.path for entry in self.tier]
        found = await anyio.to_thread.run_sync(self.folder.scan, before)
        for entry in list(self.tier):
            if entry.path in before and entry.path not in found:
                self._forget([entry])
        for path, (snapshot, used_at) in found.items():
            known, now = self.tier.get(path), self._clock()
            if known is not None:
                # Another router may have gone on with it. A time to come says nothing.
                known.used_at = max(known.used_at, used_at if used_at <= now else 0.0)
            elif snapshot is not None:
                self.tier.add(Entry(snapshot, min(used_at, now)))
        await self.shrink()

    async def shrink(self) -> None:
        """Remove what is too much."""
        await self.discard(self.tier.oldest(-self.tier.left_bytes))
        self._on_change()

    async def copy(self, entry: Entry) -> Entry | None:
        """Keep a copy of *entry*, which is kept elsewhere, if there is room; return it."""
        path = await self.reserve(entry.snapshot.identity, entry.size_bytes, entry.used_at)
        if path is None:
            return None
        try:
            await anyio.to_thread.run_sync(partial(files.copy, entry.path, path))
        except OSError as error:
            logger.warning("a conversation could not be copied to disk: %s", error)
            if not isinstance(error, FileNotFoundError):  # it was dropped meanwhile
                self.is_found_full()
            await self.release(path)
            return None
        except BaseException:
            await self.release(path)
            raise
        return Entry(
            msgspec.structs.replace(entry.snapshot, path=path), entry.used_at, entry.compute_seconds
        )
