"""Conversations on their way from the slots of a context to files, and back."""

from __future__ import annotations

import ctypes
from time import monotonic, perf_counter, time

from llm_router_mw.engine.blocks import (
    BLOCK_TOKENS,
    Beginning,
    block_hashes,
    hashed_key,
    packed,
    unpacked,
)
from llm_router_mw.engine.checkpoints import Checkpoint
from llm_router_mw.engine.context import Context
from llm_router_mw.engine.native import log
from llm_router_mw.engine.offers import Found, Offers, Rewinding
from llm_router_mw.engine.pace import Pace
from llm_router_mw.engine.slots import Match, Slot, Slots
from llm_router_mw.engine.transfer import SMALL_BYTES, Rate
from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import (
    OpenSnapshot,
    PartKind,
    SnapshotWriter,
    open_snapshot,
    snapshot_bytes,
    snapshot_of,
)
from llm_router_mw.types import SequenceInfo, Snapshot
from llm_router_mw.wire import SnapshotUsed

_WORTH_A_FILE = BLOCK_TOKENS
"""Fewer tokens are sooner computed than looked for."""


class Snapshots:
    """Saves what idle slots hold, and restores it. All in the engine's thread."""

    def __init__(self, context: Context, slots: Slots, offers: Offers, pace: Pace) -> None:
        """Work with the files of *offers*; *pace* tells what computing costs."""
        self._context = context
        self._slots = slots
        self._offers = offers
        self._pace = pace
        self._rewinding = Rewinding(context.rewind, context.n_window)
        self.saving = Rate()
        self.restoring = Rate()

    def infos(self) -> list[SequenceInfo]:
        """Return what idle slots hold that is worth a file, longest idle first."""
        if not self._offers.identity:
            return []
        return [self._info(slot) for slot in self._slots.idle() if self.is_worth_a_file(slot)]

    def is_worth_a_file(self, slot: Slot) -> bool:
        """Whether *slot* holds enough that no other slot does, and can be saved now."""
        if len(slot.tokens) < _WORTH_A_FILE or not self._slots.settled:
            return False
        return not self._slots.is_elsewhere(slot)

    def _info(self, slot: Slot) -> SequenceInfo:
        key = hashed_key(slot.key)
        return SequenceInfo(
            sequence=slot.sequence,
            key=key,
            n_tokens=len(slot.tokens),
            blocks=block_hashes(slot.tokens, key),
            state_bytes=self.file_bytes(slot),
            used_seconds_ago=monotonic() - slot.idle_since,
            prefill_tokens_per_second=self._pace.tokens_per_second,
        )

    def file_bytes(self, slot: Slot) -> int:
        """Return how large a file *slot* takes."""
        return snapshot_bytes(len(slot.tokens), [size for _, _, size in self._parts(slot)])

    def _parts(self, slot: Slot) -> list[tuple[PartKind, int, int]]:
        state: tuple[PartKind, int, int]
        state = ("state", len(slot.tokens), self._context.whole_bytes(slot.sequence))
        return [state, *[("checkpoint", c.length, len(c.state)) for c in slot.checkpoints]]

    def save(self, sequence: int, path: str) -> Snapshot:
        """Save the idle slot of *sequence* as the file *path*.

        Raises:
            SnapshotError: it is not idle or holds nothing, or the file cannot be written.
        """
        slot = next((slot for slot in self._slots.idle() if slot.sequence == sequence), None)
        if slot is None or not self._offers.identity or not self._slots.settled:
            raise SnapshotError(f"sequence {sequence} holds nothing that could be saved now")
        return snapshot_of(path, self.write(slot, path).finish())

    def write(self, slot: Slot, path: str) -> SnapshotWriter:
        """Return the file *path* with all of *slot* in it, still to be finished.

        Raises:
            SnapshotError: there is no room for it, or llama.cpp failed; nothing is left of it.
        """
        began = perf_counter()
        writer = self._writer(slot, path)
        try:
            if not self._context.save_whole(slot.sequence, state := writer.part(0)):
                raise SnapshotError(f"llama.cpp could not save a sequence: {_reason()}")
            for index, checkpoint in enumerate(slot.checkpoints, 1):
                writer.part(index)[:] = memoryview(checkpoint.state).cast("B")
        except BaseException:
            writer.discard()
            raise
        self.saving.measured(state.nbytes, perf_counter() - began)
        return writer

    def _writer(self, slot: Slot, path: str) -> SnapshotWriter:
        key = hashed_key(slot.key)
        return SnapshotWriter(
            path,
            identity=self._offers.identity,
            key=key,
            tokens=packed(slot.tokens),
            blocks=block_hashes(slot.tokens, key),
            parts=self._parts(slot),
            created_at=time(),
        )

    def find(self, beginning: Beginning, limit: int, match: Match) -> Found | None:
        """Return a snapshot that spares more of *beginning* than *match*, if that is worth it.

        At most *limit* tokens can be spared.
        """
        if not self._slots.settled:
            return None
        better_than = match.length + _WORTH_A_FILE - 1
        found = self._offers.find(beginning, limit, better_than, self._rewinding)
        if found is None or found.snapshot.size_bytes < SMALL_BYTES:
            return found
        computing = self._pace.seconds(found.length - match.length)
        restoring = self.restoring.seconds(found.snapshot.size_bytes)
        return found if computing is None or restoring < computing else None

    def restore(self, slot: Slot, found: Found) -> bool:
        """Let *slot*, which is empty, hold what *found* says, in free cells.

        False, and it stays empty, if the file is of no use; it is then not offered any more.
        """
        began = perf_counter()
        path = found.snapshot.path
        try:
            with open_snapshot(path) as file:
                self._refill(slot, file, found)
        except SnapshotError as error:
            self._offers.reject(path, str(error))
            return False
        seconds = perf_counter() - began
        self.restoring.measured(found.snapshot.size_bytes, seconds)
        self._offers.tell(SnapshotUsed(path, found.length, seconds))
        return True

    def _refill(self, slot: Slot, file: OpenSnapshot, found: Found) -> None:
        header = self._offers.header(found.snapshot)
        if file.header != header:
            raise SnapshotError("the file of a saved conversation is not what it was any more")
        checkpoints = {
            index: Checkpoint(part.length, _copied(file.part(index)))
            for index, part in enumerate(header.parts)
            if part.kind == "checkpoint" and part.length <= found.length
        }
        tokens, state = unpacked(header.tokens), file.part(0)
        log.clear()
        if not self._slots.refill(slot, tokens, state, list(checkpoints.values())):
            raise SnapshotError(f"llama.cpp does not take a saved conversation: {_reason()}")
        checkpoint = checkpoints[found.checkpoint] if found.checkpoint is not None else None
        if not self._slots.rewind(slot, Match(slot, found.length, checkpoint)):
            raise SnapshotError(f"llama.cpp could not cut a saved conversation: {_reason()}")


def _copied(state: memoryview) -> ctypes.Array[ctypes.c_uint8]:
    return (ctypes.c_uint8 * state.nbytes).from_buffer_copy(state)


def _reason() -> str:
    return log.last_errors() or "it gave no reason"
