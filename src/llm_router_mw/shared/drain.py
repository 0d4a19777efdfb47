"""Empties a router that has been replaced, without hurting those who still use it."""

from __future__ import annotations

from llm_router_mw.protocols import RouterContract
from llm_router_mw.shared.news import News
from llm_router_mw.types import InstanceState

_HOLDS_MEMORY = (InstanceState.LOADED, InstanceState.SLEEPING)


async def unload_idle(router: RouterContract, news: News) -> None:
    """Unload each model as soon as nobody uses it or waits for it; runs until it is cancelled."""
    while True:
        looked = news.looked
        for view in router.models():
            if view.state in _HOLDS_MEMORY and not view.leases and not view.waiting:
                await router.unload(view.id, wait=False)
        await looked.wait()
