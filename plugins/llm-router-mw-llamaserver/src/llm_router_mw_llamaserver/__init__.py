"""An engine that runs llama.cpp's ``llama-server``, as a plugin of llm-router-mw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_router_mw.config import plugin_options
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw_llamaserver.engine import LlamaServerEngine
from llm_router_mw_llamaserver.options import Options

if TYPE_CHECKING:
    from llm_router_mw.config import RouterConfig
    from llm_router_mw.protocols import EngineFactory

__all__ = ["LlamaServerEngine"]

llm_router_api = 1


@hookimpl
def llm_router_register_engines(config: RouterConfig) -> list[EngineFactory]:
    """Supply the engine ``llama-server``; the option ``engine`` chooses it."""
    return [LlamaServerEngine(config, plugin_options(config, "llama-server", Options))]
