"""Whether saving pays: what it takes to save and restore, against computing again."""

from __future__ import annotations

from llm_router_mw.units import MIB

_FADING = 0.5
"""Weight of the newest measurement."""


class Speed:
    """How fast snapshots go to one place and come back, as it was measured."""

    def __init__(self, save_mib_per_second: float, restore_mib_per_second: float) -> None:
        """Begin with a guess; a guess that is too low keeps what is not worth keeping away."""
        self._save = save_mib_per_second * MIB
        self._restore = restore_mib_per_second * MIB

    def saved(self, n_bytes: int, seconds: float) -> None:
        """Learn from a save."""
        self._save = _learned(self._save, n_bytes, seconds)

    def restored(self, n_bytes: int, seconds: float) -> None:
        """Learn from a restore."""
        self._restore = _learned(self._restore, n_bytes, seconds)

    def save_seconds(self, n_bytes: int) -> float:
        return n_bytes / self._save

    def pays(self, n_bytes: int, compute_seconds: float | None, *, hurried: bool) -> bool:
        """Whether *n_bytes* should be saved that could be computed again in *compute_seconds*.

        Somebody waits for the save only if *hurried*. What is unknown is kept.
        """
        if compute_seconds is None:
            return True
        cost = n_bytes / self._restore
        return cost + (self.save_seconds(n_bytes) if hurried else 0.0) < compute_seconds


def _learned(before: float, n_bytes: int, seconds: float) -> float:
    if seconds <= 0 or n_bytes < MIB:  # small ones tell of everything but the speed
        return before
    return before + _FADING * (n_bytes / seconds - before)
