"""How few loads would do: a lower bound, and what an oracle without patience would need.

**The bound** holds for every schedule on this machine that lets no request wait longer than the
longest wait that was seen, in whatever order it serves them. It relaxes the problem thus: loads
take no time, memory is one pool (nothing is lost between devices, and the margin is kept on all),
and what is resident may be chosen anew, at no cost, at the beginning of each window of time.

Time is cut into windows. A request that is sent in a window, and *longest wait* before its end at
the latest, is served within it. What is resident when the window begins fits into the memory, so
of the models that are asked for in it at least those must be loaded that are left when as many as
possible, the smallest first, were there from the beginning. (When the first window begins nothing
is there: all of them must be loaded.) Windows do not overlap, so their loads add up. Several ways
of cutting are tried, and the largest sum counts. Requests that were refused do not count; a wake
counts as a load.

**Belady's rule** (evict what is needed furthest in the future) serves the requests one by one in
the order in which they were sent. Among such schedules it needs the fewest loads if all models are
of one size; otherwise, and against schedules that may change the order, it is a reference only.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_CUTS = (1, 3, 10, 30, 100)
"""After how many loads a window is cut off, in turn."""


@dataclass(frozen=True)
class Room:
    """What may be resident at once."""

    sizes: Sequence[int]
    """Bytes of each model, by its index."""
    capacity_bytes: int
    models_max: int = 0
    """0 is no limit."""

    @property
    def slots(self) -> int:
        return self.models_max or len(self.sizes)


def lower_bound(
    sent_at: Sequence[float], sent_to: Sequence[int], room: Room, longest_wait_seconds: float
) -> int:
    """Return how many loads every schedule needs that is as patient, at least.

    *sent_to* is the index of the model that each request is for, -1 if it was refused.
    """
    cuts = (_with_windows(sent_at, sent_to, room, longest_wait_seconds, cut) for cut in _CUTS)
    return max(cuts)


def belady_loads(sent_to: Sequence[int], room: Room) -> int:
    """Return the loads of Belady's rule."""
    resident: dict[int, int] = {}
    free, loads = room.capacity_bytes, 0
    asked = [model for model in sent_to if model >= 0]
    for model, following in zip(asked, _next_uses(asked, len(room.sizes)), strict=True):
        if model not in resident:
            loads += 1
            free -= room.sizes[model]
            while resident and (free < 0 or len(resident) >= room.slots):
                farthest = max(resident, key=resident.__getitem__)
                free += room.sizes[farthest]
                del resident[farthest]
        resident[model] = following
    return loads


def _next_uses(sent_to: Sequence[int], models: int) -> array[int]:
    """Return for each request which one is the next for its model."""
    following = array("i", bytes(4 * len(sent_to)))
    last = [len(sent_to)] * models
    for place in range(len(sent_to) - 1, -1, -1):
        model = sent_to[place]
        following[place] = last[model]
        last[model] = place
    return following


def _with_windows(
    sent_at: Sequence[float], sent_to: Sequence[int], room: Room, patience: float, cut: int
) -> int:
    """Return the bound if a window is cut off when it needs *cut* loads."""
    total = loads = windows = 0
    wanted: set[int] = set()
    sizes = _Wanted(room)
    closed_until = 0.0
    for at, model in zip(sent_at, sent_to, strict=True):
        if model in wanted or at < closed_until or model < 0:
            continue
        wanted.add(model)
        loads = sizes.add(room.sizes[model])
        if loads >= cut:
            total += loads if windows else len(wanted)
            windows += 1
            wanted, sizes, loads = set(), _Wanted(room), 0
            closed_until = at + patience
    return total + (loads if windows else len(wanted))


class _Wanted:
    """The sizes of models that are wanted, and how many of them fit beside each other."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._sizes: list[int] = []
        self._fit = 0
        """So many of the smallest fit; with the next one they would not."""
        self._taken = 0
        """By those."""

    def add(self, size: int) -> int:
        """Add a model of *size*; return how many do not fit beside the smallest that do."""
        place = bisect_right(self._sizes, size)
        self._sizes.insert(place, size)
        if place <= self._fit:
            self._fit += 1
            self._taken += size
            while self._taken > self._room.capacity_bytes:
                self._fit -= 1
                self._taken -= self._sizes[self._fit]
        return len(self._sizes) - min(self._fit, self._room.slots)
