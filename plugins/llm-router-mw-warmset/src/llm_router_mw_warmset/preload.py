"""Loads the models of a set when its time begins."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.protocols import RouterContract
from llm_router_mw_warmset.schedule import Schedule

logger = logging.getLogger("llm_router_mw_warmset")

LOOK_SECONDS = 20.0


@asynccontextmanager
async def preloading(router: RouterContract, schedule: Schedule) -> AsyncIterator[None]:
    """Look at the clock as long as *router* runs."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_watch, router, schedule)
        yield
        tasks.cancel_scope.cancel()


async def _watch(router: RouterContract, schedule: Schedule) -> None:
    before: set[str] = set()
    while True:
        active = schedule.active()
        for name in active.keys() - before:
            if active[name].preload:
                logger.info("the time of set %r begins", name)
                await _load(router, active[name].models)
        before = set(active)
        await anyio.sleep(LOOK_SECONDS)


async def _load(router: RouterContract, models: tuple[str, ...]) -> None:
    for model in models:
        try:
            await router.load(model, wait=False)
        except LLMRouterError as error:
            logger.warning("model %r is not loaded with its set: %s", model, error)
