"""Conversations that outlive their context, in shared memory and in a directory."""

from llm_router_mw.kv_store.store import KVStore

__all__ = ["KVStore"]
