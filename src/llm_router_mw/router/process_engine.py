"""The engine ``process``: one worker process per instance, and a spare one at hand."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.memory.processes import private_bytes
from llm_router_mw.protocols import MemoryAccount
from llm_router_mw.router.client import WorkerClient
from llm_router_mw.router.process import WorkerProcess
from llm_router_mw.types import HOST
from llm_router_mw.units import MIB

logger = logging.getLogger("llm_router_mw.worker")

_SPARE_BYTES = 32 * MIB
"""About what a worker takes that has nothing to do yet."""


class ProcessEngine:
    """Starts workers. A spare one, imported and idle, lets the next load skip the start-up."""

    name = "process"

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self._tasks: anyio.abc.TaskGroup | None = None
        self._spare: WorkerClient | None = None
        self._spare_lock = anyio.Lock()
        self._account: MemoryAccount | None = None

    def use_account(self, account: MemoryAccount) -> None:
        """Say on *account* what the spare worker takes."""
        self._account = account
        self._tell()

    async def shed(self, pool: str, n_bytes: int) -> None:
        """End the spare worker; the next one is made when there is room for it."""
        async with self._spare_lock:
            spare, self._spare = self._spare, None
            if spare is not None:
                await spare.stop(self._config.stop_timeout_seconds)
        self._tell()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold the workers: when this is left, none of them is alive."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            if self._config.spare_worker:
                tasks.start_soon(self._make_spare)
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def create(self) -> WorkerClient:
        async with self._spare_lock:  # one that is being made is nearer than a new one
            spare, self._spare = self._spare, None
        self._tell()  # the load is charged for it from here on
        client = spare if spare is not None and spare.usable else await self._start()
        if self._config.spare_worker and self._tasks is not None:
            # At once, beside the load, which leaves processors idle: the first answers after it,
            # with which the start would compete, do not.
            self._tasks.start_soon(self._make_spare)
        return client

    async def _start(self) -> WorkerClient:
        tasks = self._tasks  # may be taken away while the process starts
        if tasks is None:
            raise ModelLoadError("the router is closing; no worker can be started")
        try:
            process = await WorkerProcess.spawn()
        except OSError as error:
            raise ModelLoadError(f"a worker process could not be started: {error}") from error
        client = WorkerClient(
            process,
            stall_seconds=self._config.client_stall_seconds,
            load_stall_seconds=self._config.load_stall_seconds,
            worker_stall_seconds=self._config.worker_stall_seconds,
        )
        tasks.start_soon(client.run)
        await client.greet()
        return client

    async def _make_spare(self) -> None:
        async with self._spare_lock:
            if self._spare is not None and self._spare.usable:
                return
            if self._account is not None and self._account.room(HOST) < _SPARE_BYTES:
                return  # models need it more
            try:
                self._spare = await self._start()
            except ModelLoadError as error:
                # A load will meet the same trouble and tell its client.
                logger.warning("no spare worker: %s", error)
        self._tell()

    def _tell(self) -> None:
        """Say what the spare worker takes; until there is one, nothing."""
        if self._account is not None:
            spare = self._spare
            size = 0
            if spare is not None and spare.usable and spare.pid is not None:
                size = private_bytes((spare.pid,)) or _SPARE_BYTES
            self._account.hold({HOST: size})
