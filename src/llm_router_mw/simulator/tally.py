"""What is counted while a trace is played."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from math import inf

THRASH_SECONDS = 60.0
"""A model that comes back so soon after it was evicted should not have gone."""


class Tally:
    """Counts, and for each request a few numbers, kept small."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = models
        self.sent_at = array("d")
        self.sent_to = array("i")
        """Index of the model that was asked for; -1 where the request was refused."""
        self.waits = array("d")
        """Seconds from a request to its lease, in the order of the leases."""
        self.loads = 0
        self.wakes = 0
        self.loading_seconds = 0.0
        self.evictions = 0
        self.thrashes = 0
        self.refused: Counter[str] = Counter()
        """By the name of the error."""
        self.revoked = 0
        self.unanswered = 0
        self.ended_at = 0.0
        self._evicted_at = [-inf] * len(models)

    def note_refusal(self, request: int, error: str) -> None:
        """Count that the *request*-th, counted from 1, was refused with *error*."""
        self.refused[error] += 1
        self.sent_to[request - 1] = -1

    def note_eviction(self, model: int, now: float) -> None:
        """Count that *model* had to make room."""
        self.evictions += 1
        self._evicted_at[model] = now

    def note_return(self, model: int, now: float) -> None:
        """Count it if *model* comes back right after it was evicted."""
        if now - self._evicted_at[model] < THRASH_SECONDS:
            self.thrashes += 1
