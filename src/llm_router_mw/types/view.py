"""Immutable pictures of the router for monitoring: reading one never wakes or blocks anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from llm_router_mw.types.model import Model, ModelInfo
from llm_router_mw.types.state import InstanceState, SleepLevel, client_state


class QueuePlace(Struct, frozen=True, kw_only=True):
    """Where a request that waits for its model stands."""

    position: int
    """1 is served next."""
    expected_wait_seconds: float | None = None
    """From now on; None where nothing is known to tell by."""
    progress: float | None = None
    """Fraction of the load of its model that is done, while it loads or wakes, or of its
    download."""
    is_downloading: bool = False


class RouterView(Struct, frozen=True, kw_only=True):
    """The router as a whole."""

    models_max: int
    models_autoload: bool
    waiting: int = 0
    """Requests in the queue."""
    plugin_failures: Mapping[str, int] = {}
    """How often each object of a plugin has failed while it worked, by its kind and name."""


class ModelView(Struct, frozen=True, kw_only=True):
    """A model and the state of the instance that serves it."""

    model: Model
    state: InstanceState = InstanceState.UNLOADED
    leases: int = 0
    waiting: int = 0
    """Requests queued for the instance."""
    progress: float | None = None
    """Fraction of the load that is done, while loading; or of the download."""
    error: str | None = None
    """Why the last load failed or the file cannot be used."""
    info: ModelInfo | None = None
    """Also of an instance that sleeps."""
    position: int | None = None
    """Place in the queue of what waits for it, 1 is next; None if nothing does."""
    expected_wait_seconds: float | None = None
    """Of what waits for it; None where nothing is known to tell by."""
    memory: Mapping[str, int] = {}
    """Bytes that the instance is charged, by memory pool."""
    sleep_level: SleepLevel | None = None
    """How deep it sleeps, while it does."""
    degraded: bool = False
    """Whether it lies where it is slower than it need be."""
    pinned: bool = False

    @property
    def id(self) -> str:
        return self.model.id

    @property
    def status(self) -> str:
        """The state under llama-server's name."""
        return client_state(self.state)


EventKind = Literal[
    "snapshot",
    "status",
    "progress",
    "queued",
    "refused",
    "evicted",
    "worker_died",
    "load_failed",
    "handler_failed",
]


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
    """All models, in a snapshot; else the one that it happened to, as it is now."""
