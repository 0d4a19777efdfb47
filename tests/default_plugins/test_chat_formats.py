"""The chat formats that come with the package."""

from __future__ import annotations

from importlib import import_module

from llm_router_mw.config import RouterConfig
from llm_router_mw.default_plugins.chat_formats import llm_router_register_chat_formats
from llm_router_mw.protocols import ChatFormat


def test_each_dotted_name_leads_to_a_chat_format() -> None:
    formats = llm_router_register_chat_formats(RouterConfig())
    assert list(formats) == ["template"]
    for dotted in formats.values():
        module, _, name = dotted.partition(":")
        assert isinstance(getattr(import_module(module), name)("", "", ""), ChatFormat)
