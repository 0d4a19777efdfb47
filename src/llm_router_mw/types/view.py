"""Immutable pictures of the router for monitoring: reading one never wakes or blocks anything."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from llm_router_mw.types.model import Model, ModelInfo
from llm_router_mw.types.state import InstanceState, client_state


class ModelView(Struct, frozen=True, kw_only=True):
    """A model and the state of the instance that serves it."""

    model: Model
    state: InstanceState = InstanceState.UNLOADED
    leases: int = 0
    waiting: int = 0
    """Requests queued for the instance."""
    progress: float | None = None
    """Fraction of the load that is done, while loading."""
    error: str | None = None
    """Why the last load failed or the file cannot be used."""
    info: ModelInfo | None = None

    @property
    def id(self) -> str:
        return self.model.id

    @property
    def status(self) -> str:
        """The state under llama-server's name."""
        return client_state(self.state)


EventKind = Literal["snapshot", "status", "progress", "evicted", "worker_died", "load_failed"]


class RouterEvent(Struct, frozen=True, kw_only=True):
    """Something that happened, with its reason in words."""

    kind: EventKind
    model: str
    """Model id; ``*`` in a snapshot."""
    at_seconds: float
    """The router's clock."""
    state: InstanceState | None = None
    reason: str = ""
    data: dict[str, Any] = {}
    models: tuple[ModelView, ...] = ()
    """All models, in a snapshot."""
