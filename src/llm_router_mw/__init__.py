"""Many local GGUF models behind any ASGI or WSGI app.

Names are resolved on first use: a worker process imports this package too, and must not pay for
(or depend on) a web framework and a plugin manager.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_router_mw.access import get_router, get_sync_router
    from llm_router_mw.asgi import LLMRouterApp, LLMRouterMiddleware
    from llm_router_mw.config import RouterConfig
    from llm_router_mw.errors import LLMRouterError
    from llm_router_mw.hookspecs import hookimpl
    from llm_router_mw.lifespan import compose_lifespans, llm_lifespan
    from llm_router_mw.protocols import RouterContract
    from llm_router_mw.router import Lease, Router
    from llm_router_mw.shared.remote import RemoteRouter
    from llm_router_mw.types import ChatTask, CompletionTask, EmbedTask, RerankTask, Sampling
    from llm_router_mw.wsgi import LLMRouterWSGIMiddleware

__version__ = "0.1.0"

_HOMES = {
    "ChatTask": "types",
    "CompletionTask": "types",
    "EmbedTask": "types",
    "LLMRouterApp": "asgi",
    "LLMRouterError": "errors",
    "LLMRouterMiddleware": "asgi",
    "LLMRouterWSGIMiddleware": "wsgi",
    "Lease": "router",
    "RemoteRouter": "shared.remote",
    "RerankTask": "types",
    "Router": "router",
    "RouterConfig": "config",
    "RouterContract": "protocols",
    "Sampling": "types",
    "compose_lifespans": "lifespan",
    "get_router": "access",
    "get_sync_router": "access",
    "hookimpl": "hookspecs",
    "llm_lifespan": "lifespan",
}

__all__ = [
    "ChatTask",
    "CompletionTask",
    "EmbedTask",
    "LLMRouterApp",
    "LLMRouterError",
    "LLMRouterMiddleware",
    "LLMRouterWSGIMiddleware",
    "Lease",
    "RemoteRouter",
    "RerankTask",
    "Router",
    "RouterConfig",
    "RouterContract",
    "Sampling",
    "compose_lifespans",
    "get_router",
    "get_sync_router",
    "hookimpl",
    "llm_lifespan",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
