"""Our sleep handler: it keeps conversations."""

from __future__ import annotations

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.kv_store import KVStore


@hookimpl
def llm_router_register_sleep_handlers(config: RouterConfig) -> list[KVStore]:
    return [KVStore(config)]
