"""The language between router and worker: length-prefixed msgpack frames over two pipes.

A frame is a 4-byte little-endian length and a msgpack map whose ``type`` names the message.
Nothing here does I/O: :func:`encode` makes bytes, :class:`Decoder` takes them in any portions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from llm_router_mw.errors import WireError
from llm_router_mw.types import (
    Delta,
    Failure,
    LoadOptions,
    ModelInfo,
    Placement,
    SequenceInfo,
    SleepLevel,
    Snapshot,
    Spare,
    Task,
)

PROTOCOL = 3
"""Raised whenever a message changes its meaning; both sides must agree."""
MAX_FRAME_BYTES = 256 * 1024 * 1024
"""A longer frame means that the stream is out of step."""
INITIAL_CREDIT = 256
"""Deltas that a request may have under way before the reader has taken any."""
_PREFIX_BYTES = 4


class Hello(Struct, frozen=True, tag="hello"):
    """Router → worker, first of all."""

    protocol: int
    version: str


class Load(Struct, frozen=True, tag="load"):
    """Router → worker: load *path*. Answered by progress, then loaded or load_failed."""

    path: str
    options: LoadOptions
    chat_formats: dict[str, str]
    """Name → dotted name (``package.module:Class``) of every registered chat format."""
    environ: dict[str, str] = {}
    """Set before any backend starts, over what the placement asks for."""
    placement: Placement | None = None
    """Where it goes; None leaves it to the options, on all devices that there are."""
    identity: str = ""
    """What a saved state must have been made with to be of use; empty if none is to be used."""


class Submit(Struct, frozen=True, tag="submit"):
    """Router → worker: run *task* as request *id*, with room for *credit* deltas."""

    id: int
    task: Task
    credit: int = INITIAL_CREDIT


class Credit(Struct, frozen=True, tag="credit"):
    """Router → worker: *amount* more deltas of request *id* were taken by the reader."""

    id: int
    amount: int


class Cancel(Struct, frozen=True, tag="cancel"):
    """Router → worker: end request *id* at the next step."""

    id: int


class Sleep(Struct, frozen=True, tag="sleep"):
    """Router → worker: free memory and stay; answered by slept or sleep_failed."""

    level: SleepLevel


class Wake(Struct, frozen=True, tag="wake"):
    """Router → worker: load again what the first load said; answered as that was."""


class ListSequences(Struct, frozen=True, tag="list_sequences"):
    """Router → worker: what do idle slots hold? Answered by sequences, none while it sleeps."""


class SaveSequence(Struct, frozen=True, tag="save_sequence"):
    """Router → worker: save an idle slot in *path*; answered by sequence_saved or save_failed."""

    sequence: int
    path: str


class OfferSnapshots(Struct, frozen=True, tag="offer_snapshots"):
    """Router → worker: *snapshots* may be used, and *spares* be written, from now on.

    They come in addition to what was offered before, and outlast sleep.
    """

    snapshots: list[Snapshot] = []
    spares: list[Spare] = []


class WithdrawSnapshots(Struct, frozen=True, tag="withdraw_snapshots"):
    """Router → worker: the snapshots and spares in *paths* are not to be used any more."""

    paths: list[str]


class Stop(Struct, frozen=True, tag="stop"):
    """Router → worker: abort a load under way, cancel all requests, exit."""


class Ready(Struct, frozen=True, tag="ready"):
    """Worker → router, the answer to hello."""

    protocol: int
    version: str
    pid: int


class Progress(Struct, frozen=True, tag="progress"):
    """Worker → router: fraction of the load that is done, 0 to 1."""

    value: float


class Loaded(Struct, frozen=True, tag="loaded"):
    """Worker → router: the instance can take tasks."""

    info: ModelInfo


class LoadFailed(Struct, frozen=True, tag="load_failed"):
    """Worker → router: the load or the wake ended without an instance.

    After a load the worker exits. After a wake it stays, asleep at level ``full``.
    """

    failure: Failure


class Slept(Struct, frozen=True, tag="slept"):
    """Worker → router: it sleeps, and has private memory (None: unknown) left as said."""

    seconds: float
    private_bytes: int | None
    freed_bytes: int | None


class SleepFailed(Struct, frozen=True, tag="sleep_failed"):
    """Worker → router: it does not sleep, because requests are under way."""

    failure: Failure


class Sequences(Struct, frozen=True, tag="sequences"):
    """Worker → router: what idle slots hold, longest idle first."""

    infos: list[SequenceInfo]


class SequenceSaved(Struct, frozen=True, tag="sequence_saved"):
    """Worker → router: the slot's state is in that file."""

    snapshot: Snapshot


class SaveFailed(Struct, frozen=True, tag="save_failed"):
    """Worker → router: it is not, and there is no file."""

    path: str
    failure: Failure


class SnapshotUsed(Struct, frozen=True, tag="snapshot_used"):
    """Worker → router: a request began with the first *n_tokens* of a snapshot."""

    path: str
    n_tokens: int
    seconds: float
    """What restoring it took."""


class SnapshotBad(Struct, frozen=True, tag="snapshot_bad"):
    """Worker → router: a snapshot that was offered is of no use, and will not be tried again."""

    path: str
    reason: str


class SnapshotKept(Struct, frozen=True, tag="snapshot_kept"):
    """Worker → router: what had to leave the context is in a file that was a spare.

    The worker goes on using it as if it had been offered.
    """

    snapshot: Snapshot


class Alive(Struct, frozen=True, tag="alive"):
    """Worker → router, now and then while requests are under way: the engine's thread goes on."""


class Step(Struct, frozen=True, tag="step"):
    """Worker → router: everything that one decode step gave, for all requests at once."""

    deltas: list[tuple[int, Delta]]


ToWorker = (
    Hello
    | Load
    | Submit
    | Credit
    | Cancel
    | Sleep
    | Wake
    | Stop
    | ListSequences
    | SaveSequence
    | OfferSnapshots
    | WithdrawSnapshots
)
ToRouter = (
    Ready
    | Progress
    | Loaded
    | LoadFailed
    | Slept
    | SleepFailed
    | Step
    | Alive
    | Sequences
    | SequenceSaved
    | SaveFailed
    | SnapshotUsed
    | SnapshotBad
    | SnapshotKept
)
SnapshotNews = SnapshotUsed | SnapshotBad | SnapshotKept
"""What a worker tells of saved states without being asked."""

_encoder = msgspec.msgpack.Encoder()


def encode(message: Struct) -> bytes:
    """Return *message*, of this protocol or of the shared host's, as one frame."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return len(body).to_bytes(_PREFIX_BYTES, "little") + body


MessageT = TypeVar("MessageT")


class Decoder(Generic[MessageT]):
    """Cuts a byte stream into messages.

    Raises:
        WireError: a length over ``max_frame_bytes``, or a body that is no known message.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[MessageT]) -> None:
        self.max_frame_bytes = MAX_FRAME_BYTES
        """Lower it for a peer that is not known yet."""
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[MessageT]:
        """Add *data* and yield each message that is now complete."""
        self._buffer += data
        while len(self._buffer) >= _PREFIX_BYTES:
            length = int.from_bytes(self._buffer[:_PREFIX_BYTES], "little")
            if length > self.max_frame_bytes:
                raise WireError(f"a frame announces {length} bytes; the stream is out of step")
            end = _PREFIX_BYTES + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_PREFIX_BYTES:end])
            del self._buffer[:end]
            try:
                yield self._decoder.decode(body)
            except msgspec.MsgspecError as error:
                raise WireError(f"a frame is not a known message: {error}") from error


def worker_decoder() -> Decoder[ToWorker]:
    """Return the decoder of the worker's end."""
    return Decoder(msgspec.msgpack.Decoder(ToWorker))


def router_decoder() -> Decoder[ToRouter]:
    """Return the decoder of the router's end."""
    return Decoder(msgspec.msgpack.Decoder(ToRouter))
