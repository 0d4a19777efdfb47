"""Ollama's API, as a plugin of llm-router-mw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_router_mw.hookspecs import hookimpl
from llm_router_mw_ollama.names import LatestResolver
from llm_router_mw_ollama.routes import OllamaRoutes

if TYPE_CHECKING:
    from llm_router_mw.protocols import ModelResolver, RouteGroup

__all__ = ["LatestResolver", "OllamaRoutes"]

llm_router_api = 1


@hookimpl
def llm_router_register_routes() -> list[RouteGroup]:
    """Supply the routes below ``/api``."""
    return [OllamaRoutes()]


@hookimpl
def llm_router_register_model_resolvers() -> list[ModelResolver]:
    """Supply what understands names with ``:latest``."""
    return [LatestResolver()]
