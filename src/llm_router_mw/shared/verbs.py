"""Carries out what a web process asks of the router as a whole."""

from __future__ import annotations

from llm_router_mw.protocols import RouterContract
from llm_router_mw.shared.messages import (
    GetCached,
    GetTasks,
    Load,
    PurgeCache,
    PutToSleep,
    Unload,
    Verb,
)


async def carry_out(verb: Verb, router: RouterContract) -> object:
    """Return what *router* answers to *verb*.

    Raises:
        LLMRouterError: it refused, or failed.
    """
    match verb:
        case Load(_, model, wait):
            await router.load(model, wait=wait)
            return None
        case Unload(_, model, force, wait):
            return await router.unload(model, force=force, wait=wait)
        case PutToSleep(_, model, level, wait):
            return await router.sleep(model, level=level, wait=wait)
        case PurgeCache(_, model):
            return await router.purge_cache(model)
        case GetTasks(_, model):
            return await router.tasks(model)
        case GetCached():
            return await router.cached()
