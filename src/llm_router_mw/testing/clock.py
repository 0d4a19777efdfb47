"""A clock that stands still."""

from __future__ import annotations


class VirtualClock:
    """A ``Clock`` whose time passes when a test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        """Seconds."""

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.now += seconds
