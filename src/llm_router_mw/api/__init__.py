"""The dialects: what clients send and receive, as a pure ASGI application over a router."""

from llm_router_mw.api.app import RouterAPI
from llm_router_mw.api.settings import APISettings, api_settings

__all__ = ["APISettings", "RouterAPI", "api_settings"]
