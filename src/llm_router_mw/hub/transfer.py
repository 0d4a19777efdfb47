"""Fetches one file into the cache: resumes what is there, and checks what has come."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import anyio
import anyio.to_thread

from llm_router_mw.errors import DownloadError
from llm_router_mw.hub.cache import HubCache
from llm_router_mw.hub.client import Body, HubClient
from llm_router_mw.hub.files import HubFile, Plan

try:
    import fcntl
except ImportError:  # Windows: two programs may fetch the same file there
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("llm_router_mw.hub")

Told = Callable[[int], None]
"""Is told how many bytes of the file are here."""

ATTEMPTS: Final = 5
"""How often in a row it is tried without a byte more."""
_PAUSE_SECONDS = 1.0
"""Before the second attempt; doubled each time."""
_LONGEST_PAUSE_SECONDS = 30.0
_BLOCK_BYTES = 4 * 1024 * 1024
_RETRY_LOCK_SECONDS = 0.5


async def fetch(client: HubClient, cache: HubCache, plan: Plan, file: HubFile, told: Told) -> None:
    """Have the contents of *file* in *cache*, under its name; what is there of it is kept.

    If this is cancelled, or fails for a reason that may pass, the next call goes on from there.

    Raises:
        DownloadError: it cannot be fetched, or what has come is not what the hub has promised.
    """
    try:
        async with _locked(cache.lock(plan.repo, file)):
            if not await anyio.to_thread.run_sync(cache.has, plan, file):
                await _fetch(client, cache, plan, file, told)
            told(file.size_bytes)
            await anyio.to_thread.run_sync(cache.place, plan, file)
    except OSError as error:
        raise DownloadError(
            f"{file.path} cannot be written to the hub's cache: {error.strerror}; make room "
            "there, or set HF_HUB_CACHE to another directory"
        ) from error


async def _fetch(client: HubClient, cache: HubCache, plan: Plan, file: HubFile, told: Told) -> None:
    sink = await anyio.to_thread.run_sync(Sink, cache.incomplete(plan.repo, file), file)
    try:
        await sink.take_up()
        told(sink.position)
        await _fill(client, plan, file, sink, told)
        await anyio.to_thread.run_sync(sink.finish, cache.blob(plan.repo, file))
    finally:
        sink.close()


async def _fill(client: HubClient, plan: Plan, file: HubFile, sink: Sink, told: Told) -> None:
    """Fetch until all is there; interruptions are borne as long as something comes."""
    attempt = 0
    while sink.position < file.size_bytes:
        before = sink.position
        try:
            async with client.open(plan, file, sink.position) as body:
                await _pour(body, sink, told)
            problem = DownloadError(f"the hub sent too little of {file.path}", passing=True)
        except DownloadError as error:
            problem = error
        if sink.position >= file.size_bytes:
            break
        attempt = 1 if sink.position > before else attempt + 1
        if not problem.fields.get("passing") or attempt >= ATTEMPTS:
            raise problem
        pause = min(_PAUSE_SECONDS * 2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)
        logger.warning("%s: %s; tried again in %g s", file.path, problem.message, pause)
        await anyio.sleep(pause)


async def _pour(body: Body, sink: Sink, told: Told) -> None:
    if body.start != sink.position:
        await anyio.to_thread.run_sync(sink.restart)
    block = bytearray()
    try:
        async with aclosing(body.chunks()) as chunks:
            async for chunk in chunks:
                block += chunk
                if len(block) >= _BLOCK_BYTES:
                    whole, block = block, bytearray()
                    await anyio.to_thread.run_sync(sink.write, whole)
                    told(sink.position)
    finally:
        # What has come before an interruption need not come again.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(sink.write, block)
        told(sink.position)


class Sink:
    """The file that grows, and the hash of what is in it. Blocks: not for the event loop."""

    def __init__(self, path: Path, file: HubFile) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = file
        self._hash: Any = file.new_hash()
        self._out: BinaryIO = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115
        self.position = 0

    async def take_up(self) -> None:
        """Go on after what an earlier attempt has left."""
        while await anyio.to_thread.run_sync(self._take_up_block):
            pass

    def _take_up_block(self) -> bool:
        block = self._out.read(_BLOCK_BYTES)
        self._hash.update(block)
        self.position += len(block)
        if self.position > self._file.size_bytes:  # it is of something else
            self.restart()
            return False
        return bool(block)

    def restart(self) -> None:
        """Forget what is there."""
        self._out.seek(0)
        self._out.truncate()
        self._hash = self._file.new_hash()
        self.position = 0

    def write(self, block: bytes | bytearray) -> None:
        """Add *block*.

        Raises:
            DownloadError: that is more than the file has.
            OSError: the disk does not take it.
        """
        if self.position + len(block) > self._file.size_bytes:
            raise DownloadError(
                f"the hub sends more of {self._file.path} than the "
                f"{self._file.size_bytes} bytes that it has"
            )
        self._out.write(block)
        self._hash.update(block)
        self.position += len(block)

    def finish(self, blob: Path) -> None:
        """Check what has come, and make it *blob*.

        Raises:
            DownloadError: it is damaged; then it is deleted.
        """
        if self._hash.hexdigest() != self._file.oid:
            self._path.unlink(missing_ok=True)
            raise DownloadError(
                f"{self._file.path} arrived damaged: its hash is not what the hub says; it has "
                "been deleted, ask again to fetch it anew"
            )
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        os.replace(self._path, blob)

    def close(self) -> None:
        """Let go of the file; what is in it stays."""
        self._out.close()


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock that the hub's own tools take, too; wait for those who have it."""
    if fcntl is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # Other processes send no event when they are done.
        is_told = False
        while not _try_lock(descriptor):
            if not is_told:
                is_told = True
                logger.info("%s is fetched by somebody else already: waiting", path.stem)
            await anyio.sleep(_RETRY_LOCK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
