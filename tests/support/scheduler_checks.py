"""All promises of the scheduler, by name."""

from __future__ import annotations

from tests.support import (
    scheduler_promises_hub,
    scheduler_promises_life,
    scheduler_promises_room,
)
from tests.support.scheduler_promise import PROMISES, Promise

__all__ = ["PROMISES", "Promise"]

# Each of these modules registers its promises when it is imported.
_ = (scheduler_promises_room, scheduler_promises_life, scheduler_promises_hub)
