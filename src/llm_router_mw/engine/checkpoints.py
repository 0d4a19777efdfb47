"""States to come back to, for models whose sequences cannot simply be cut short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MAX_CHECKPOINTS = 8
"""Of one sequence."""
_MAX_BYTES = 512 * 2**20
"""Of all sequences together, unless a single one is larger."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The part of a sequence's state that cannot be rewound, after its first ``length`` tokens."""

    length: int
    state: Any
    """An array of ctypes: bytes."""


def add_checkpoint(checkpoints: list[Checkpoint], new: Checkpoint) -> None:
    """Add *new* to those of its sequence, in the order of their lengths."""
    checkpoints.append(new)
    checkpoints.sort(key=lambda each: each.length)
    del checkpoints[:-_MAX_CHECKPOINTS]


def bound_checkpoints(by_worth: Sequence[list[Checkpoint]]) -> None:
    """Forget some while all together are too large; the first of the first list goes first."""
    # Sequences that were copied share theirs.
    users = Counter(id(each) for checkpoints in by_worth for each in checkpoints)
    sizes = {id(each): len(each.state) for checkpoints in by_worth for each in checkpoints}
    for checkpoints in by_worth:
        for each in tuple(checkpoints):
            if len(sizes) <= 1 or sum(sizes.values()) <= _MAX_BYTES:
                return
            checkpoints.remove(each)
            users[id(each)] -= 1
            if not users[id(each)]:
                del sizes[id(each)]
