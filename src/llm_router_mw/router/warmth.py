"""Keeps the files of sleeping models in the page cache, so that they wake without the disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio
import anyio.to_thread

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.gguf import shards

logger = logging.getLogger("llm_router_mw.router")

_EVERY_SECONDS = 30.0
_CHUNK_BYTES = 64 * 2**20
_PAUSE_SECONDS = 0.05
"""Between two chunks: others want to read, too."""


class Warmth:
    """Has the system read again what it has dropped, as long as there is memory to spare.

    Pages in the cache count as free memory, so whoever needs it takes it from them.
    """

    def __init__(self, sleeping: Callable[[], Iterable[str]], room: Callable[[], int]) -> None:
        """*sleeping* returns the files of models whose weights are freed; *room* free bytes."""
        self._sleeping = sleeping
        self._room = room

    async def run(self) -> None:
        """Look after the files; runs as long as the router."""
        if not hasattr(os, "posix_fadvise"):
            logger.warning("warm_weights does nothing on this system")
            return
        while True:
            await anyio.sleep(_EVERY_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Go over the files once."""
        left = self._room()
        for path in self._sleeping():
            try:
                files = await anyio.to_thread.run_sync(_files, path)
                left -= sum(size for _, size in files)
                if left < 0:
                    return
                for file, size in files:
                    await self._warm(path, file, size)
            except (OSError, LLMRouterError) as error:
                logger.debug("%s is not kept warm: %s", path, error)

    async def _warm(self, path: str, file: Path, size: int) -> None:
        for offset in range(0, size, _CHUNK_BYTES):
            if path not in self._sleeping() or self._room() < _CHUNK_BYTES:
                return
            await anyio.to_thread.run_sync(_read_ahead, file, offset)
            await anyio.sleep(_PAUSE_SECONDS)


def _files(path: str) -> list[tuple[Path, int]]:
    return [(part, part.stat().st_size) for part in shards(path)]


def _read_ahead(file: Path, offset: int) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, offset, _CHUNK_BYTES, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)
