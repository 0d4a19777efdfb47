"""How long to wait for somebody who gives no sign of life."""

from __future__ import annotations

import anyio

from llm_router_mw.lateness import TICKS, is_late


class Patience:
    """Waits for an event as long as there are signs of life.

    Only time in which we listened counts. It is measured in ticks, and one that took much longer
    than it should was spent by this loop doing something else: what was said meanwhile has yet to
    be read.
    """

    def __init__(self, seconds: float) -> None:
        """Lose patience after *seconds* of silence."""
        self.seconds = seconds
        self._tick_seconds = seconds / TICKS
        self._silent_ticks = 0

    def heard(self) -> None:
        """Take note of a sign of life."""
        self._silent_ticks = -1  # the present tick, of which only a part is silent, counts not

    async def outlasts(self, event: anyio.Event) -> bool:
        """Return True once *event* is set, False after too long a silence."""
        self._silent_ticks = 0
        while self._silent_ticks < TICKS and not event.is_set():
            began = anyio.current_time()
            with anyio.move_on_after(self._tick_seconds):
                await event.wait()
                return True
            if not is_late(anyio.current_time() - began, self._tick_seconds):
                self._silent_ticks += 1
        return event.is_set()
