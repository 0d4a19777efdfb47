"""The sleep handler that saves conversations, and has workers go on from them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ConfigError, SnapshotError
from llm_router_mw.kv_store import folder as files
from llm_router_mw.kv_store.folder import Folder
from llm_router_mw.kv_store.jobs import Jobs
from llm_router_mw.kv_store.offered import Offered, Worker
from llm_router_mw.kv_store.place import Place
from llm_router_mw.kv_store.ram_folder import RamFolder
from llm_router_mw.kv_store.speed import Speed
from llm_router_mw.kv_store.tier import UNLIMITED, Entry, Tier
from llm_router_mw.protocols import InstanceHandle, MemoryAccount
from llm_router_mw.types import (
    HOST,
    Purged,
    SequenceInfo,
    Snapshot,
    Spare,
    Step,
    StoredSnapshot,
)
from llm_router_mw.units import MIB
from llm_router_mw.wire import SnapshotBad, SnapshotKept, SnapshotNews, SnapshotUsed

logger = logging.getLogger("llm_router_mw.kv_store")

_SWEEP_SECONDS = 60.0
_PAUSE_SECONDS = 60.0
"""After a spare could not be written, for so long there is no other."""
_HURRIED_SECONDS = 1.0
"""What may be spent on saving while requests wait for the memory."""
_PATIENCE = 0.8
"""Part of the time that a sleep handler has which may be spent on saving otherwise."""
_LARGEST_SPARE_BYTES = 1024 * MIB
_SMALLEST_SPARE_BYTES = 8 * MIB


class KVStore:
    """A ``SnapshotStore`` with two places: shared memory, and a directory that outlives routers.

    What is saved goes into memory where it may, and is copied into the directory behind
    everybody's back. Everything but the handling of files runs on the router's loop.
    """

    name = "kv-store"

    def __init__(
        self,
        config: RouterConfig,
        *,
        clock: Callable[[], float] = time.time,
        shared_memory: str | Path | None = None,
    ) -> None:
        """Keep what *config* allows; *clock* gives Unix time, *shared_memory* is the system's."""
        self._config = config
        self._clock = clock
        self._offered = Offered()
        self._jobs = Jobs(self.name)
        self._account: MemoryAccount | None = None
        self._ram_folder = RamFolder(shared_memory)
        self._ram: Place | None = None
        self._disk: Place | None = None
        self._purges = 0
        """Counts them: what was begun before one is not kept after it."""

    # Life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep conversations while this is entered.

        Raises:
            ConfigError: ``kv_cache_dir`` cannot be used.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            await anyio.to_thread.run_sync(self._open)
            if self._disk is not None:
                await self._disk.scan()
            await stack.enter_async_context(self._jobs.running(self._config.stop_timeout_seconds))
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(self._sweep_now_and_then)
            stack.callback(tasks.cancel_scope.cancel)
            yield

    def _open(self) -> None:
        config = self._config
        if config.cache_ram != 0:
            try:
                self._ram_folder.open()
            except SnapshotError as error:
                logger.warning("conversations are not kept in memory: %s", error)
            else:
                self._ram = self._place(
                    Tier("ram", _bytes(config.cache_ram), self._room),
                    self._ram_folder.folder,
                    Speed(600.0, 4000.0),
                )
        if config.kv_cache_dir is not None:
            folder = Folder(os.path.abspath(config.kv_cache_dir))
            try:
                folder.prepare()
            except SnapshotError as error:
                raise ConfigError(f"option: kv_cache_dir: {error}") from error
            tier = Tier("disk", _bytes(config.kv_cache_disk), lambda: UNLIMITED)
            self._disk = self._place(tier, folder, Speed(200.0, 500.0))

    def _place(self, tier: Tier, folder: Folder, speed: Speed) -> Place:
        return Place(tier, folder, speed, self._offered, self._clock, self._say_what_is_held)

    async def _close(self) -> None:
        self._ram = self._disk = None
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._ram_folder.close)

    @property
    def _places(self) -> list[Place]:
        return [place for place in (self._ram, self._disk) if place is not None]

    # Sleep handler

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        """Save what *handle* holds of conversations, the latest first, as far as that pays."""
        worker = self._offered.worker(handle)
        worker.is_awake = False
        await self._take_back_spares(worker)
        if not handle.identity or not self._places:
            return
        began = anyio.current_time()
        for info in reversed(await handle.sequences()):
            spent = anyio.current_time() - began
            await self._save(handle, info, self._patience_with(handle) - spent)

    async def resume(self, handle: InstanceHandle) -> None:
        """Let *handle* go on from what is kept for it."""
        worker = self._offered.worker(handle)
        worker.is_awake = True
        self._settle(worker)
        await self._give_spare(worker)

    # Saving

    def _patience_with(self, handle: InstanceHandle) -> float:
        """Return how long saving what *handle* holds may take in all."""
        seconds = _PATIENCE * self._config.sleep_handler_timeout_seconds
        if handle.closing:
            seconds = min(seconds, _PATIENCE * self._config.stop_timeout_seconds)
        return min(seconds, _HURRIED_SECONDS) if handle.hurried else seconds

    async def _save(self, handle: InstanceHandle, info: SequenceInfo, seconds: float) -> None:
        """Save *info* if it is not kept already and that can be done in *seconds*."""
        used_at = self._clock() - info.used_seconds_ago
        known = [place.tier.covering(handle.identity, info) for place in self._places]
        if any(known):
            for entry in filter(None, known):
                self._used(entry, used_at)
            return
        for place in self._places_for(handle, info, seconds):
            if await self._save_in(place, handle, info, used_at):
                return

    def _places_for(
        self, handle: InstanceHandle, info: SequenceInfo, seconds: float
    ) -> list[Place]:
        """Return where *info* may be saved, the best place first."""
        n_bytes, hurried = info.state_bytes, handle.hurried
        return [
            place
            for place in self._places
            if not (place.is_full or (place is self._ram and handle.closing))
            and place.speed.pays(n_bytes, _compute_seconds(info), hurried=hurried)
            and place.speed.save_seconds(n_bytes) <= seconds
        ]

    async def _save_in(
        self, place: Place, handle: InstanceHandle, info: SequenceInfo, used_at: float
    ) -> bool:
        """Save *info* in *place*; return whether there is nothing left to be tried."""
        identity, purges = handle.identity, self._purges
        needless = place.tier.covered_by(identity, info)
        # In the directory a worker of another router may be reading what would be written over.
        writer = handle if place is self._ram else None
        path = await place.reserve(
            identity, info.state_bytes, used_at, needless=needless, writer=writer
        )
        if path is None:
            return False
        began = anyio.current_time()
        try:
            snapshot = await handle.save(info.sequence, path)
        except SnapshotError as error:
            await place.release(path)
            logger.warning("a conversation of %s is not saved: %s", handle.key, error)
            if error.out_of_space:
                place.is_found_full()
            return not error.out_of_space
        except BaseException:
            await place.release(path)
            raise
        if purges != self._purges:
            await place.release(path)
            return True
        place.speed.saved(snapshot.size_bytes, anyio.current_time() - began)
        await self._keep(place, Entry(snapshot, used_at, _compute_seconds(info)))
        return True

    async def _keep(self, place: Place, entry: Entry) -> None:
        place.keep(entry)
        self._used(entry, entry.used_at)
        identity = entry.snapshot.identity
        await place.discard(place.tier.covered_by(identity, entry.snapshot))
        if place is self._ram and self._disk is not None:
            self._jobs.put(lambda: self._copy_to_disk(entry))
        self._settle_all(identity)

    async def _copy_to_disk(self, entry: Entry) -> None:
        disk, identity, purges = self._disk, entry.snapshot.identity, self._purges
        if disk is None or disk.is_full or disk.tier.covering(identity, entry.snapshot):
            return
        if not disk.speed.pays(entry.size_bytes, entry.compute_seconds, hurried=False):
            return
        copy = await disk.copy(entry)
        if copy is None:
            return
        if purges != self._purges:
            await disk.release(copy.path)
        else:
            await self._keep(disk, copy)

    # What workers know

    def _settle(self, worker: Worker) -> None:
        """Let *worker* know what it can go on from: what is on disk only where memory has less."""
        identity = worker.handle.identity
        wanted: list[Snapshot] = []
        for place in self._places if identity else ():
            for entry in place.tier.of(identity):
                if not any(known.covers(entry.snapshot) for known in wanted):
                    wanted.append(entry.snapshot)
        self._offered.settle(worker, wanted)

    def _settle_all(self, identity: str) -> None:
        for worker in self._offered:
            if worker.handle.identity == identity:
                self._settle(worker)

    def heard(self, handle: InstanceHandle, news: SnapshotNews) -> None:
        """Take what a worker says about the files that it was offered."""
        worker = self._offered.get(handle) or Worker(handle)
        match news:
            case SnapshotUsed(path, _, seconds):
                for place in self._places:
                    if (entry := place.tier.get(path)) is not None:
                        place.speed.restored(entry.size_bytes, seconds)
                        self._used(entry, self._clock())
            case SnapshotBad(path):
                if path in worker.spares:
                    worker.no_spares_before = self._clock() + _PAUSE_SECONDS
                    self._jobs.put(lambda: self._take_back_spares(worker))
                else:
                    self._jobs.put(lambda: self._remove(path))
            case SnapshotKept(snapshot):
                self._take_spare(worker, snapshot)

    def left(self, handle: InstanceHandle) -> None:
        """Note that the process of *handle* is gone."""
        worker = self._offered.forget(handle)
        if worker is not None and worker.spares:
            self._jobs.put(lambda: self._take_back_spares(worker))

    def _used(self, entry: Entry, at: float) -> None:
        entry.used_at = max(entry.used_at, at)
        if self._disk is not None and self._disk.tier.get(entry.path) is entry:
            path, used_at = entry.path, entry.used_at

            async def touch() -> None:
                await anyio.to_thread.run_sync(files.touch, path, used_at)

            self._jobs.put(touch)

    # Spares

    async def _give_spare(self, worker: Worker) -> None:
        """Hand out a file for what has to leave the context of *worker* while it works."""
        ram, handle = self._ram, worker.handle
        if ram is None or not handle.identity or worker.spares or not worker.is_awake:
            return
        n_bytes = min(ram.tier.left_bytes // 2, _LARGEST_SPARE_BYTES)
        if n_bytes < _SMALLEST_SPARE_BYTES or self._clock() < worker.no_spares_before:
            return
        path = ram.folder.new_path(handle.identity)
        ram.tier.reserve(path, n_bytes)
        worker.spares.add(path)
        await anyio.to_thread.run_sync(files.create_empty, path)
        if path in worker.spares:
            handle.offer((), (Spare(path=path, limit_bytes=n_bytes),))
            self._say_what_is_held()

    def _take_spare(self, worker: Worker, snapshot: Snapshot) -> None:
        """Keep what *worker* has saved by itself."""
        ram = self._ram
        if ram is None or snapshot.path not in worker.spares:
            # Else it would go on from it, as from all that it has kept.
            worker.handle.withdraw([snapshot.path])
            self._jobs.put(lambda: self._remove(snapshot.path))
            return
        worker.spares.discard(snapshot.path)
        worker.snapshots.add(snapshot.path)
        entry = Entry(snapshot, self._clock())
        ram.keep(entry)

        async def tidy_up() -> None:
            await self._keep(ram, entry)
            await ram.shrink()
            await self._give_spare(worker)

        self._jobs.put(tidy_up)

    async def _take_back_spares(self, worker: Worker) -> None:
        paths = sorted(worker.spares)
        self._offered.withdraw(paths)
        for path in paths:
            if self._ram is not None:
                await self._ram.release(path)

    # Memory

    def use_account(self, account: MemoryAccount) -> None:
        """Charge what is kept in memory to *account*."""
        self._account = account

    async def shed(self, pool: str, n_bytes: int) -> None:
        """Give *n_bytes* of the host's memory back, or all that is kept there."""
        if pool != HOST or self._ram is None:
            return
        before = self._ram.tier.used_bytes
        for worker in self._offered:
            await self._take_back_spares(worker)
        freed = before - self._ram.tier.used_bytes
        victims = self._ram.tier.oldest(n_bytes - freed)
        await self._ram.discard(victims)
        for identity in {entry.snapshot.identity for entry in victims}:
            self._settle_all(identity)

    def _room(self) -> int:
        left = self._ram_folder.left_bytes
        return left if self._account is None else min(left, self._account.room(HOST))

    def _say_what_is_held(self) -> None:
        if self._account is not None and self._ram is not None:
            self._account.hold({HOST: self._ram.tier.used_bytes})

    # Time

    async def _sweep_now_and_then(self) -> None:
        while True:
            await anyio.sleep(_SWEEP_SECONDS)
            self._jobs.put(self.sweep)

    async def sweep(self) -> None:
        """Forget what nobody went on with for too long; see what others did to the directory."""
        if self._disk is not None:
            await self._disk.scan()
        ttl = self._config.kv_cache_ttl_seconds
        if ttl >= 0:
            for place in self._places:
                await place.discard(place.tier.expired(self._clock() - ttl))
        for worker in self._offered:
            if worker.is_awake:
                self._settle(worker)
                await self._give_spare(worker)

    # People

    def snapshots(self) -> Sequence[StoredSnapshot]:
        """Return what is kept, latest used first."""
        found = [
            StoredSnapshot(
                model=os.path.basename(entry.snapshot.model_path),
                n_tokens=entry.snapshot.n_tokens,
                size_bytes=entry.size_bytes,
                tier=place.tier.name,
                created_at=entry.snapshot.created_at,
                used_at=entry.used_at,
            )
            for place in self._places
            for entry in place.tier
        ]
        return sorted(found, key=lambda each: -each.used_at)

    async def purge(self, path: str | None = None) -> Purged:
        """Remove all conversations, or those of the model in the file *path*."""
        self._purges += 1
        wanted = None
        if path is not None:
            wanted = await anyio.to_thread.run_sync(os.path.realpath, path)
        snapshots = size_bytes = 0
        for place in self._places:
            gone = [each for each in place.tier if wanted in (None, each.snapshot.model_path)]
            snapshots += len(gone)
            size_bytes += sum(entry.size_bytes for entry in gone)
            await place.discard(gone)
        for worker in self._offered:
            # What one has begun to write may be of those that are to go.
            await self._take_back_spares(worker)
            await self._give_spare(worker)
        return Purged(snapshots=snapshots, size_bytes=size_bytes)

    async def _remove(self, path: str) -> None:
        """Remove what is in *path*, known or not."""
        for place in self._places:
            # Only files of ours: the path comes from a worker.
            if os.path.dirname(path) == str(place.folder.path):
                await place.discard(filter(None, [place.tier.get(path)]))
                await place.release(path)


def _bytes(mib: int) -> int:
    return UNLIMITED if mib < 0 else mib * MIB


def _compute_seconds(info: SequenceInfo) -> float | None:
    speed = info.prefill_tokens_per_second
    return None if not speed else info.n_tokens / speed
