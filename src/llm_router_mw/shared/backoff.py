"""How long to wait before something is tried again."""

from __future__ import annotations

from typing import Final

_FIRST_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 5.0
_STABLE_SECONDS: Final = 10.0
"""What lasted for so long was no failure."""


class Backoff:
    """Not at all at first; then twice as long from one time to the next, up to a bound."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def next(self) -> float:
        """Return for how many seconds to wait now."""
        seconds = self._seconds
        self._seconds = min(max(2 * seconds, _FIRST_SECONDS), LONGEST_SECONDS)
        return seconds

    def lasted(self, seconds: float) -> None:
        """Note for how long it went well: long enough, and all begins anew."""
        if seconds >= _STABLE_SECONDS:
            self._seconds = 0.0
