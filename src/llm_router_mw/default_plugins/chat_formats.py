"""The chat formats that come with the package; the classes are imported in workers only."""

from __future__ import annotations

from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl


@hookimpl
def llm_router_register_chat_formats(config: RouterConfig) -> dict[str, str]:
    """Supply ``template``: the Jinja template in the model's file."""
    return {"template": "llm_router_mw.engine.chat_template:TemplateChatFormat"}
