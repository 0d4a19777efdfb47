"""Models of the Hugging Face hub: which file is meant, where it is cached, how it gets there."""

from llm_router_mw.hub.hub import Hub

__all__ = ["Hub"]
