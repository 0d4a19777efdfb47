"""How fast states of sequences go to files and come back, measured."""

from __future__ import annotations

from typing import Final

SMALL_BYTES: Final = 2**20
"""What is smaller takes no time worth measuring."""
_ASSUMED_BYTES_PER_SECOND = 1e9
"""Until something has been measured: less than any memory can do, more than most disks."""
_WEIGHT = 0.5
"""Of the newest measurement."""


class Rate:
    """Bytes per second of one direction."""

    def __init__(self) -> None:
        self._bytes_per_second = _ASSUMED_BYTES_PER_SECOND

    def measured(self, size: int, seconds: float) -> None:
        """Learn that *size* bytes took so long."""
        if size >= SMALL_BYTES:
            newest = size / max(seconds, 1e-6)
            self._bytes_per_second += _WEIGHT * (newest - self._bytes_per_second)

    def seconds(self, size: int) -> float:
        """Return how long *size* bytes will take."""
        return size / self._bytes_per_second
