"""Keeping what overflows: conversations that must leave the context go to files without a word."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from llm_router_mw.engine.aside import Aside
from llm_router_mw.engine.blocks import block_hashes, hashed_key
from llm_router_mw.engine.offers import Offers
from llm_router_mw.engine.pace import Pace
from llm_router_mw.engine.slots import Slot, Slots
from llm_router_mw.engine.snapshots import Snapshots
from llm_router_mw.engine.transfer import SMALL_BYTES
from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import SnapshotWriter, provide_memory, snapshot_of
from llm_router_mw.types import Spare

_STALL_SECONDS = 0.1
"""What answers under way may stand still while something is saved: as long as for a step."""
_LONGEST_STALL_SECONDS = 1.0
_STALL_PART = 0.05
"""They may stand still longer where that is so small a part of what would be computed again."""

Then = Callable[[], None]
"""What is left to be done in the engine's thread."""


class Spares:
    """Saves slots that lose what they hold into files that the router has handed out before.

    The engine's thread only copies the state. Memory is made ready for that, and check sums are
    made of it, aside: a first touch of fresh memory takes several times as long as the copy.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        slots: Slots,
        offers: Offers,
        pace: Pace,
        aside: Aside | None,
    ) -> None:
        """Take spares of *offers*.

        Who makes *aside* sees that what its jobs return is called in the engine's thread.
        """
        self._snapshots = snapshots
        self._slots = slots
        self._offers = offers
        self._pace = pace
        self._aside = aside
        self._jobs = count()
        self._ready: dict[str, int] = {}
        """Bytes of memory that each spare, by path, has or is being given."""

    def keep(self, slot: Slot, *, hurried: bool) -> None:
        """Save *slot*, which is about to be cleared, if there is a spare and it is worth it.

        *hurried* says that answers are under way, which have to wait meanwhile.
        """
        if not self._offers.has_spares or not self._snapshots.is_worth_a_file(slot):
            return
        key = hashed_key(slot.key)
        if self._offers.covers(key, block_hashes(slot.tokens, key)):
            return
        size = self._snapshots.file_bytes(slot)
        spare = self._offers.spare(size)
        if spare is not None and self._pays(len(slot.tokens), size, hurried):
            self._offers.spend(spare)
            self._ready.pop(spare.path, None)
            self._save(slot, spare)

    def _pays(self, n_tokens: int, size: int, hurried: bool) -> bool:
        """Whether saving and restoring is faster than computing, and stops others not too long."""
        if size < SMALL_BYTES:
            return True
        computing = self._pace.seconds(n_tokens)
        saving = self._snapshots.saving.seconds(size)
        if computing is not None and saving + self._snapshots.restoring.seconds(size) > computing:
            return False
        worth = min(_STALL_PART * (computing or 0.0), _LONGEST_STALL_SECONDS)
        return not hurried or saving <= max(_STALL_SECONDS, worth)

    def _save(self, slot: Slot, spare: Spare) -> None:
        try:
            writer = self._snapshots.write(slot, spare.path)
        except SnapshotError as error:
            self._offers.reject(spare.path, str(error))
        else:
            self._do(lambda: self._finish(writer, spare))

    def _finish(self, writer: SnapshotWriter, spare: Spare) -> Then:
        try:
            snapshot = snapshot_of(spare.path, writer.finish())
        except SnapshotError as error:
            reason = str(error)
            return lambda: self._offers.reject(spare.path, reason)
        return lambda: self._offers.kept(snapshot)

    def make_ready(self) -> None:
        """Have memory made ready for what will have to leave next; costs little if it is."""
        if self._aside is None or not self._offers.has_spares or not self._slots.is_half_full:
            return
        oldest = next(iter(self._slots.idle()), None)
        size = self._snapshots.file_bytes(oldest) if oldest is not None else 0
        spare = self._offers.spare(size)
        if spare is not None and self._ready.get(spare.path, 0) < size:
            self._ready[spare.path] = size
            self._do(lambda: _provide(spare.path, size))

    def _do(self, work: Callable[[], Then]) -> None:
        if self._aside is None:
            work()()
        else:
            self._aside.put(next(self._jobs), work)


def _provide(path: str, size: int) -> Then:
    # The engine's thread may be writing to it already.
    provide_memory(path, size)
    return lambda: None
