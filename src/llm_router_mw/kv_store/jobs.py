"""Work that nobody waits for, one piece after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from llm_router_mw.faults import Faults

Job = Callable[[], Awaitable[object]]


class Jobs:
    """Does what it was given while it is running."""

    def __init__(self, owner: str) -> None:
        """*owner* is for whom it works: of his failures the first is logged."""
        self._owner = owner
        self._faults = Faults()
        self._jobs: deque[Job] = deque()
        self._news = anyio.Event()
        self._closing = False

    def put(self, job: Job) -> None:
        """Have *job* done after what was put before."""
        self._jobs.append(job)
        self._news.set()

    @asynccontextmanager
    async def running(self, finish_seconds: float) -> AsyncIterator[None]:
        """Do jobs; when this is left, those that are left over are given *finish_seconds*."""
        self._closing = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._work)
            try:
                yield
            finally:
                self._closing = True
                self._news.set()
                tasks.cancel_scope.deadline = anyio.current_time() + finish_seconds

    async def _work(self) -> None:
        while True:
            while self._jobs:
                await self._do(self._jobs.popleft())
            if self._closing:
                return
            self._news = anyio.Event()
            await self._news.wait()

    async def _do(self, job: Job) -> None:
        try:
            await job()
        except Exception as error:  # one that fails must not keep the next ones from being done
            self._faults.add("work for", self._owner, error)
