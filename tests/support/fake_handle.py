"""An instance as sleep handlers see it, whose worker saves what a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import snapshot_of, write_snapshot
from llm_router_mw.types import InstanceKey, LoadOptions, SequenceInfo, Snapshot, Spare
from tests.support.snapshots import blocks

MIB = 2**20


def sequence(
    number: int = 0,
    *beginnings: int,
    key: str = "somebody",
    size: int = MIB,
    ago: float = 0.0,
    prefill: float | None = None,
) -> SequenceInfo:
    """Return a sequence of 64 tokens for each of its *beginnings*, saved in *size* bytes."""
    return SequenceInfo(
        sequence=number,
        key=key,
        n_tokens=64 * len(beginnings),
        blocks=blocks(*beginnings),
        state_bytes=size,
        used_seconds_ago=ago,
        prefill_tokens_per_second=prefill,
    )


@dataclass(eq=False)
class FakeHandle:
    """A worker that holds *held*, and remembers what it was told."""

    identity: str = "/models/a.gguf#1"
    held: list[SequenceInfo] = field(default_factory=list)
    hurried: bool = False
    closing: bool = False
    models: tuple[str, ...] = ("a",)
    offered: dict[str, Snapshot] = field(default_factory=dict)
    spares: dict[str, Spare] = field(default_factory=dict)
    saved: list[int] = field(default_factory=list)
    """Numbers of the sequences that it was asked to save."""
    before_saving: Callable[[str], None] = lambda path: None
    """Is called with the path of the file that is written next; may raise."""
    gate: anyio.Event | None = None
    """What it waits for before it saves."""

    @property
    def key(self) -> InstanceKey:
        return InstanceKey("/models/a.gguf", LoadOptions())

    async def sequences(self) -> Sequence[SequenceInfo]:
        return tuple(self.held)

    async def save(self, sequence: int, path: str) -> Snapshot:
        if self.gate is not None:
            await self.gate.wait()
        self.saved.append(sequence)
        info = next(each for each in self.held if each.sequence == sequence)
        self.before_saving(path)
        return write(path, info, self.identity)

    def offer(self, snapshots: Sequence[Snapshot], spares: Sequence[Spare] = ()) -> None:
        self.offered |= {each.path: each for each in snapshots}
        self.spares |= {each.path: each for each in spares}

    def withdraw(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.offered.pop(path, None)
            self.spares.pop(path, None)

    def memory(self) -> Mapping[str, int]:
        return {}


def write(path: str | Path, info: SequenceInfo, identity: str = "/models/a.gguf#1") -> Snapshot:
    """Write *info* as a snapshot of ``state_bytes`` or a little more; return what is told of it."""
    header = write_snapshot(
        path,
        [("state", info.n_tokens, bytes(max(1, info.state_bytes - 4096 * 4)))],
        identity=identity,
        key=info.key,
        tokens=bytes(4 * info.n_tokens),
        blocks=info.blocks,
        created_at=1.0,
    )
    return snapshot_of(path, header)


def no_room(path: str) -> None:
    """Behave as a worker whose file system is full."""
    raise SnapshotError("there is no room", out_of_space=True)
