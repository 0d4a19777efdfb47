"""The engines that come with the package."""

from __future__ import annotations

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import EngineFactory
from llm_router_mw.router.process_engine import ProcessEngine


@hookimpl
def llm_router_register_engines(config: RouterConfig) -> list[EngineFactory]:
    return [ProcessEngine(config)]
