"""What both sides are told alike."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How a server is started for a scenario."""

    model_kind: str
    """dense, hybrid or encoder."""
    n_ctx: int
    """Tokens of context, all requests together."""
    n_parallel: int
    """Requests answered at once."""
    pooling: str = ""
    """Pooling of an embedding server; empty for one that generates."""
    sleep_idle_seconds: int = -1
    """Idle time after which a model sleeps; -1 never."""
    sleep_level: str = "full"
    """What sleep frees; llama-server knows only ``full``."""
    n_models: int = 1
    """Models to choose from, of which one is loaded at a time."""
