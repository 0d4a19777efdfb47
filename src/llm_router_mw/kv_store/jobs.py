"""Work that nobody waits for, one piece after the other."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

logger = logging.getLogger("llm_router_mw.kv_store")

Job = Callable[[], Awaitable[object]]


class Jobs:
    """Does what it was given while it is running."""

    def __init__(self) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Job](math.inf)

    def put(self, job: Job) -> None:
        """Have *job* done after what was put before."""
        self._send.send_nowait(job)

    @asynccontextmanager
    async def running(self, finish_seconds: float) -> AsyncIterator[None]:
        """Do jobs; when this is left, those that are left over are given *finish_seconds*."""
        with self._send, self._receive:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._work)
                try:
                    yield
                finally:
                    self._send.close()
                    tasks.cancel_scope.deadline = anyio.current_time() + finish_seconds

    async def _work(self) -> None:
        async for job in self._receive:
            try:
                await job()
            except Exception:  # one that fails must not keep the next ones from being done
                logger.exception("something about saved conversations could not be done")
