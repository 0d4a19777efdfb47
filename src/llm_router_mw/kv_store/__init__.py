"""Conversations that outlive their context, in shared memory and in a directory."""

from llm_router_mw.kv_store.folder import saved_in
from llm_router_mw.kv_store.store import KVStore

__all__ = ["KVStore", "saved_in"]
