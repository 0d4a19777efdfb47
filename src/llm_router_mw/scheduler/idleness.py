"""What becomes of an instance that nobody uses."""

from __future__ import annotations

from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.types import InstanceState, Step


def idle_step(instance: Instance, now: float) -> Step | None:
    """Return how far down *instance* goes now for being idle; None if it stays as it is."""
    is_sleeping = instance.state is InstanceState.SLEEPING
    if not instance.is_idle and not is_sleeping:
        return None
    if now >= instance.unload_at_seconds:
        return "stop"
    if now >= instance.sleep_at_seconds:
        return instance.terms.sleep_level
    return None
