"""Deadlines: at most one outstanding for each thing that has one."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Iterator


class Timers:
    """Rings for a thing no later than its deadline; whoever hears it looks whether it is time.

    A deadline that moves later costs nothing: the old one rings, and is set again. So a thing
    whose deadline moves with each request, such as an instance's idle limit, has one entry.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Hashable]] = []
        self._at: dict[Hashable, float] = {}
        self._count = 0

    def ring(self, thing: Hashable, at_seconds: float) -> None:
        """Ring for *thing* at *at_seconds* or before."""
        known = self._at.get(thing)
        if known is not None and known <= at_seconds:
            return
        self._at[thing] = at_seconds
        self._count += 1  # things themselves need no order
        heapq.heappush(self._heap, (at_seconds, self._count, thing))

    def forget(self, thing: Hashable) -> None:
        """Do not ring for *thing* any more."""
        self._at.pop(thing, None)

    def due(self, now: float) -> Iterable[Hashable]:
        """Return the things whose time has come, and forget them one by one."""
        return self._due(now) if self._heap and self._heap[0][0] <= now else ()

    def _due(self, now: float) -> Iterator[Hashable]:
        heap = self._heap
        while heap and heap[0][0] <= now:
            at_seconds, _, thing = heapq.heappop(heap)
            if self._at.get(thing) == at_seconds:
                del self._at[thing]
                yield thing

    @property
    def next_seconds(self) -> float | None:
        """When something rings next."""
        heap = self._heap
        while heap and self._at.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)  # it was moved earlier
        return heap[0][0] if heap else None
