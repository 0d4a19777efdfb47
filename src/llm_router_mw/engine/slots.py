"""The sequences of the context, and what they still hold from requests that are over.

A request is given a slot. When it ends, the slot keeps its tokens: a later request that begins in
the same way goes on from there, in the same slot or in another one that gets a copy. Only requests
of one cache key (namespace and adapters) see each other's tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import Any

from llm_router_mw.engine.cells import Cells
from llm_router_mw.engine.checkpoints import Checkpoint, add_checkpoint, bound_checkpoints
from llm_router_mw.engine.context import Context
from llm_router_mw.engine.model import Rewind

CacheKey = tuple[Any, ...]
_KEEP_WHOLE = 2
"""A slot is continued in place only if at least one part in so many of it is of use."""


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the context."""

    sequence: int
    key: CacheKey = ()
    tokens: list[int] = field(default_factory=list)
    """What the context holds of it."""
    cells: list[int] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    busy: bool = False
    used_at: int = 0
    """Order in which the slots' last requests ended."""
    idle_since: float = 0.0
    """On the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Match:
    """Tokens that need not be computed again: the first ``length`` of ``slot``."""

    slot: Slot | None = None
    length: int = 0
    checkpoint: Checkpoint | None = None
    """Has to be restored first; None if the slot can be used as it is."""


NO_MATCH = Match()


class Slots:
    """All sequences of a context. Changes to its memory are made here, and counted here."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._cells = Cells(context.n_cells)
        self._slots = [Slot(sequence) for sequence in range(context.n_parallel)]
        self._clock = count(1)
        self.settled = True
        """Whether all states are where they belong.

        llama.cpp copies and moves some of them not before the next step: until then they can be
        neither saved nor overwritten from outside.
        """
        self.on_loss: Callable[[Slot], None] = lambda slot: None
        """Is told of an idle slot whose conversation, or most of it, is about to be forgotten."""

    @property
    def n_free_cells(self) -> int:
        return self._cells.n_free

    @property
    def is_half_full(self) -> bool:
        """Whether less than half of the cells are free."""
        return self.n_free_cells * 2 < self._context.n_cells

    @property
    def has_idle(self) -> bool:
        """Whether a request could be given a slot."""
        return any(not slot.busy for slot in self._slots)

    def idle(self) -> list[Slot]:
        """Return the slots that hold something for nobody in particular, longest idle first."""
        holding = [slot for slot in self._slots if slot.tokens and not slot.busy]
        return sorted(holding, key=lambda slot: slot.used_at)

    def is_elsewhere(self, slot: Slot) -> bool:
        """Whether another slot begins with all that *slot* holds."""
        length = len(slot.tokens)
        return any(
            other is not slot
            and other.key == slot.key
            and common_prefix(other.tokens, slot.tokens, length) == length
            for other in self._slots
        )

    def match(self, tokens: list[int], key: CacheKey) -> Match:
        """Return the most of *tokens*, but not all, that some slot can spare computing."""
        best = NO_MATCH
        for slot in self._slots:
            if slot.key == key and len(slot.tokens) > best.length:
                length = common_prefix(slot.tokens, tokens, len(tokens) - 1)
                if length > best.length:
                    found = self._usable(slot, length)
                    best = found if found.length > best.length else best
        return best

    def _usable(self, slot: Slot, length: int) -> Match:
        """Return how much of the first *length* tokens of *slot* can be gone on from."""
        if length == len(slot.tokens) or self._context.can_rewind(slot.sequence, length):
            return Match(slot, length)
        if not self.settled:
            return NO_MATCH
        for checkpoint in reversed(slot.checkpoints):
            if checkpoint.length <= length:
                return Match(slot, checkpoint.length, checkpoint)
        return NO_MATCH

    def clear_room(self, needed: int, match: Match) -> Match | None:
        """See that *needed* cells are free, at the cost of what idle slots hold.

        Returns:
            What is left of *match*; None, and nothing is lost, if there is no such room.
        """
        if needed > self.n_free_cells + self._reclaimable(match):
            return None
        while needed > self.n_free_cells and self.drop_oldest(match):
            pass
        if needed <= self.n_free_cells or match.slot is None:
            return match
        # What follows the match in its own slot has to go too.
        self._part_with_rest(match)
        if self.rewind(match.slot, match):
            return Match(match.slot, match.length)
        return NO_MATCH

    def _reclaimable(self, match: Match) -> int:
        """Return how many cells are used neither by busy slots nor by *match*."""
        kept: set[int] = set()
        for slot in self._slots:
            if slot.busy:
                kept.update(slot.cells)
        if match.slot is not None:
            kept.update(match.slot.cells[: match.length])
        return self._context.n_cells - self.n_free_cells - len(kept)

    def drop_oldest(self, match: Match = NO_MATCH) -> bool:
        """Forget what the longest idle slot holds, but not that of *match*; False if none does."""
        oldest = next((slot for slot in self.idle() if slot is not match.slot), None)
        if oldest is None:
            return False
        self._part_with(oldest)
        return True

    def _part_with(self, slot: Slot) -> None:
        if slot.tokens:
            self.on_loss(slot)
        self.clear(slot)

    def _part_with_rest(self, match: Match) -> None:
        """What follows *match* in its slot is about to be forgotten."""
        if match.slot is not None and not match.slot.busy and _is_little_of(match):
            self.on_loss(match.slot)

    def take(self, match: Match, key: CacheKey) -> Slot:
        """Return an idle slot, now busy, that holds the tokens of *match* and no others."""
        slot = self._choose(match)
        if slot is match.slot:
            self._part_with_rest(match)
        else:
            self._part_with(slot)
            if match.slot is not None:
                self._copy(match.slot, slot, match)
        slot.key = key
        slot.busy = True
        self.rewind(slot, match)
        return slot

    def _choose(self, match: Match) -> Slot:
        idle = sorted((slot for slot in self._slots if not slot.busy), key=lambda s: s.used_at)
        source = match.slot
        if source is not None and source in idle:
            # Else the rest of another conversation would be lost for a common beginning.
            if not _is_little_of(match) or len(idle) == 1:
                return source
            idle.remove(source)
        return next((slot for slot in idle if not slot.tokens), idle[0])

    def _copy(self, source: Slot, target: Slot, match: Match) -> None:
        length = match.length
        if self._context.unified:
            self._context.share(source.sequence, target.sequence, length)
            target.cells = source.cells[:length]
            self._cells.share(target.cells)
        else:
            # Between separate streams llama.cpp copies all or nothing.
            length = len(source.tokens)
            self._copy_stream(source, target, at_once=match.checkpoint is not None)
            target.cells = self._cells.take(length)
        target.tokens = source.tokens[:length]
        target.checkpoints = [each for each in source.checkpoints if each.length <= length]

    def _copy_stream(self, source: Slot, target: Slot, *, at_once: bool) -> None:
        """Copy a whole stream; *at_once* if it is to be overwritten in part before the next step.

        Then *source* has to be settled.
        """
        if at_once:
            state = memoryview(bytearray(self._context.whole_bytes(source.sequence)))
            self._context.save_whole(source.sequence, state)
            self._context.restore_whole(target.sequence, state)
        else:
            self._context.share(source.sequence, target.sequence, -1)
            self.settled = False

    def _rewind(self, slot: Slot, match: Match) -> bool:
        """Bring *slot* to the length of *match*; False if llama.cpp would not."""
        if match.checkpoint is not None and not self._context.restore(
            slot.sequence, match.checkpoint.state
        ):
            return False
        return self.truncate(slot, match.length)

    def truncate(self, slot: Slot, length: int) -> bool:
        """Forget all but the first *length* tokens of *slot*; False if llama.cpp would not."""
        if length < len(slot.tokens) and not self._context.truncate(slot.sequence, length):
            return False
        self._cells.give_back(slot.cells[length:])
        del slot.cells[length:]
        del slot.tokens[length:]
        slot.checkpoints = [each for each in slot.checkpoints if each.length <= length]
        return True

    def extend(self, slot: Slot, tokens: list[int]) -> None:
        """The context has computed *tokens* behind those of *slot*."""
        self.settled = True
        slot.tokens += tokens
        slot.cells += self._cells.take(len(tokens))

    def release(self, slot: Slot) -> None:
        """The request of *slot* has ended; its tokens stay for those to come."""
        slot.busy = False
        slot.used_at = next(self._clock)
        slot.idle_since = monotonic()

    def clear(self, slot: Slot) -> None:
        """Forget all that *slot* holds."""
        self._context.remove(slot.sequence)
        self._cells.give_back(slot.cells)
        slot.tokens, slot.cells, slot.checkpoints = [], [], []

    def checkpoint(self, slot: Slot) -> None:
        """Save what is needed to come back to where *slot* is now."""
        length = len(slot.tokens)
        if not length or any(each.length == length for each in slot.checkpoints):
            return
        state = self._context.save(slot.sequence)
        if state is not None:
            add_checkpoint(slot.checkpoints, Checkpoint(length, state))
            self._bound_checkpoints()

    def _bound_checkpoints(self) -> None:
        by_worth = sorted(self._slots, key=lambda slot: (slot.busy, slot.used_at))
        bound_checkpoints([slot.checkpoints for slot in by_worth])

    def refill(
        self, slot: Slot, tokens: list[int], state: memoryview, checkpoints: list[Checkpoint]
    ) -> bool:
        """Let *slot*, which is empty, hold *tokens* by their saved *state*.

        There must be free cells for them. False, and it stays empty, if llama.cpp would not.
        """
        if not self._context.restore_whole(slot.sequence, state):
            return False
        if self._context.last_position(slot.sequence) != len(tokens) - 1:
            self._context.remove(slot.sequence)
            return False
        slot.tokens = tokens
        slot.cells = self._cells.take(len(tokens))
        slot.checkpoints = checkpoints
        self._bound_checkpoints()
        return True

    def rewind(self, slot: Slot, match: Match) -> bool:
        """Bring *slot* to the length of *match*; where llama.cpp would not, clear it: False."""
        if self._rewind(slot, match):
            return True
        self.clear(slot)
        return False

    def shift(self, slot: Slot, keep: int, discard: int) -> bool:
        """Forget *discard* tokens behind the first *keep*, and move the rest up.

        Returns False where that can't be done: the model has no such positions, or the tokens
        are shared, so that moving them would move another request's.
        """
        if self._cells.is_shared(slot.cells[keep:]):
            return False
        if not self._context.shift(slot.sequence, keep, discard):
            return False
        self.settled = False
        self._cells.give_back(slot.cells[keep : keep + discard])
        del slot.cells[keep : keep + discard]
        del slot.tokens[keep : keep + discard]
        slot.checkpoints = []
        return True

    def cut(self, slot: Slot, length: int) -> None:
        """Forget all but the first *length* tokens of *slot*, or all where that is impossible."""
        if not self.truncate(slot, length):
            self.clear(slot)

    @property
    def needs_checkpoints(self) -> bool:
        """Whether the model's sequences cannot simply be cut short."""
        return self._context.rewind is not Rewind.ANYWHERE


def _is_little_of(match: Match) -> bool:
    """Whether most of what the slot of *match* holds would be lost for its beginning."""
    return match.slot is not None and match.length * _KEEP_WHOLE < len(match.slot.tokens)


def common_prefix(left: list[int], right: list[int], limit: int) -> int:
    """Return how many tokens at the beginning are equal, *limit* at most."""
    limit = min(limit, len(left), len(right))
    low, high = 0, limit
    # Comparing slices is C's work: a few of them beat a loop over the tokens.
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return max(low, 0)
