"""The limits that the scheduler keeps, as it is told once."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Counts, and times in seconds. The fields are those of ``RouterConfig``."""

    models_max: int = 4
    """Instances that load, are loaded or wake at once; 0 is no limit."""
    workers_max: int = 0
    """Workers at once, those that sleep included; 0 is no limit."""
    max_queue: int = 512
    """Requests that wait in all; 0 is no limit."""
    max_queue_per_model: int = 0
    """Requests that wait for one instance; 0 is no limit."""
    max_wait_seconds: float = 30.0
    """Other work that a request waits for before busy victims drain."""
    min_resident_seconds: float = 0.0
    """How long an instance stays at least, unless somebody has waited ``max_wait_seconds``."""
    queue_timeout_seconds: float = 600.0
    max_lease_seconds: float = 3600.0
    max_keep_alive_seconds: float = 86_400.0
