"""A router that nobody has started: the first verb starts it, on a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Unpack

import anyio.to_thread

from llm_router_mw.protocols import LeaseContract, OnQueued, RouterContract
from llm_router_mw.router.thread import RouterThread
from llm_router_mw.types import (
    AS_USUAL,
    ModelView,
    Purged,
    RouterEvent,
    RouterView,
    SleepLevel,
    StoredSnapshot,
    Task,
    Wish,
    WishOptions,
)


class OnDemandRouter:
    """The verbs of a router (``RouterContract``) for apps whose server sends no lifespan."""

    def __init__(self, thread: RouterThread) -> None:
        self._thread = thread

    @asynccontextmanager
    async def acquire(
        self, model: str, /, *models: str, **options: Unpack[WishOptions]
    ) -> AsyncIterator[Any]:
        """As ``Router.acquire``."""
        router = await self._started()
        async with router.acquire(model, *models, **options) as held:
            yield held

    async def lease(
        self, model: str, wish: Wish = AS_USUAL, *, on_queued: OnQueued | None = None
    ) -> LeaseContract:
        """As ``Router.lease``."""
        return await (await self._started()).lease(model, wish, on_queued=on_queued)

    def models(self) -> tuple[ModelView, ...]:
        """As ``Router.models``; the first call waits for the router to start."""
        self._thread.start()
        return self._thread.router.models()

    def overview(self) -> RouterView:
        """As ``Router.overview``; the first call waits for the router to start."""
        self._thread.start()
        return self._thread.router.overview()

    async def tasks(self, model: str) -> tuple[Task, ...]:
        """As ``Router.tasks``."""
        return await (await self._started()).tasks(model)

    async def load(self, model: str, *, wait: bool = True) -> None:
        """As ``Router.load``."""
        await (await self._started()).load(model, wait=wait)

    async def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        """As ``Router.unload``."""
        return await (await self._started()).unload(model, force=force, wait=wait)

    async def sleep(self, model: str, *, level: SleepLevel = "full", wait: bool = True) -> bool:
        """As ``Router.sleep``."""
        return await (await self._started()).sleep(model, level=level, wait=wait)

    async def wake(self, model: str, *, wait: bool = True) -> None:
        """As ``Router.wake``."""
        await (await self._started()).wake(model, wait=wait)

    async def cached(self) -> tuple[StoredSnapshot, ...]:
        """As ``Router.cached``."""
        return await (await self._started()).cached()

    async def purge_cache(self, model: str | None = None) -> Purged:
        """As ``Router.purge_cache``."""
        return await (await self._started()).purge_cache(model)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RouterEvent]]:
        """As ``Router.events``."""
        router = await self._started()
        async with router.events() as events:
            yield events

    async def _started(self) -> RouterContract:
        if not self._thread.router.running:
            await anyio.to_thread.run_sync(self._thread.start)
        return self._thread.router
