"""Tells a wait that took its time from one that a blocked event loop drew out."""

from __future__ import annotations

from typing import Final

TICKS: Final = 8
"""In so many parts a silence is watched: time in which nobody listened is left out by parts."""
_LATENESS_SECONDS: Final = 0.05
"""How late any loop may be that nobody blocks. Ticks may be shorter, and count nevertheless."""


def is_late(waited_seconds: float, tick_seconds: float) -> bool:
    """Whether a wait of one tick took so long that the loop was doing something else meanwhile."""
    return waited_seconds >= tick_seconds + max(tick_seconds, _LATENESS_SECONDS)
