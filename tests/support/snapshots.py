"""Snapshots of no model, small enough to be changed byte by byte."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_router_mw.snapshot_file import SnapshotHeader, SnapshotWriter, write_snapshot
from llm_router_mw.types import Snapshot

STATE = bytes(range(256)) * 40
CHECKPOINT = b"recurrent" * 7
TOKENS = struct.pack("<5i", 1, 20, 300, 4000, 50000)


def written(path: Path) -> SnapshotHeader:
    """Write a snapshot of five tokens with a checkpoint after the third."""
    return write_snapshot(
        path,
        [("state", 5, STATE), ("checkpoint", 3, CHECKPOINT)],
        identity="model A",
        key="somebody",
        tokens=TOKENS,
        created_at=12.5,
    )


def writer_of(path: Path, size: int = len(STATE)) -> SnapshotWriter:
    return SnapshotWriter(
        path,
        identity="model A",
        key="somebody",
        tokens=TOKENS,
        blocks=b"8 bytes!",
        parts=[("state", 5, size)],
        created_at=12.5,
    )


def failing_with(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def blocks(*numbers: int) -> bytes:
    """Return hashes of beginnings: one for each of *numbers*."""
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def snapshot(path: str = "/x.kv", **fields: Any) -> Snapshot:
    """Return what is told of a snapshot."""
    defaults: dict[str, Any] = {
        "identity": "model A",
        "key": "somebody",
        "n_tokens": 130,
        "blocks": blocks(1, 2),
        "size_bytes": 1000,
        "created_at": 12.5,
    }
    return Snapshot(path=path, **(defaults | fields))
