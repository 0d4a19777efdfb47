"""What stands at the beginning of a snapshot: its layout, as bytes and as a struct."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from xxhash import xxh3_64_digest

from llm_router_mw.errors import SnapshotError
from llm_router_mw.types import Snapshot

PartKind = Literal["state", "checkpoint"]
"""All of a sequence, or what of it cannot be rewound, as it was after fewer tokens."""

ALIGNMENT: Final = 4096
VERSION: Final = 1
MAGIC: Final = b"LLMRKV\r\n"
PROLOGUE: Final = struct.Struct("<8sII8s")
MAX_HEADER_BYTES: Final = 256 * 2**20
_MAX_PARTS: Final = 64
_TOKEN_BYTES: Final = 4
_BLOCK_BYTES_PER_TOKEN: Final = 8
"""What :attr:`SnapshotHeader.blocks` takes at most."""
_ABOUT_BYTES: Final = 8192
"""What everything else in a header may take: identity, key and parts."""


class SnapshotPart(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One piece of llama.cpp's state."""

    kind: PartKind
    length: int
    """Tokens of the sequence that it covers."""
    size: int
    """Bytes."""
    offset: int = 0
    """Bytes from the beginning of the file."""
    checksum: bytes = bytes(8)
    """Of its bytes: xxh3, 64 bits."""

    @property
    def end(self) -> int:
        return self.offset + self.size


class SnapshotHeader(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a snapshot without reading its parts."""

    identity: str
    """Of the instance that made it; only one of equal identity can go on from it."""
    key: str
    """Of those who may use it: namespace and adapters, as opaque text."""
    tokens: bytes
    """32-bit little-endian integers."""
    blocks: bytes
    """As :attr:`llm_router_mw.types.Snapshot.blocks`."""
    parts: tuple[SnapshotPart, ...]
    """The state first, then checkpoints."""
    created_at: float
    """Unix time."""

    @property
    def n_tokens(self) -> int:
        return len(self.tokens) // _TOKEN_BYTES

    @property
    def size_bytes(self) -> int:
        """Of the whole file."""
        return self.parts[-1].end

    @property
    def is_sound(self) -> bool:
        """Whether it does not contradict itself."""
        parts = self.parts
        if not self.tokens or len(self.tokens) % _TOKEN_BYTES or not 0 < len(parts) <= _MAX_PARTS:
            return False
        first, checkpoints = parts[0], parts[1:]
        if first.kind != "state" or first.length != self.n_tokens:
            return False
        return (
            first.offset == _header_bytes(self.n_tokens)
            and all(part.size > 0 and part.offset % ALIGNMENT == 0 for part in parts)
            and all(part.offset >= before.end for before, part in pairwise(parts))
            and all(part.kind == "checkpoint" for part in checkpoints)
            and all(0 < part.length <= self.n_tokens for part in checkpoints)
        )


_encoder = msgspec.msgpack.Encoder()


def encode_header(header: SnapshotHeader) -> bytes:
    """Return what a file begins with; no more than lies before its first part.

    Raises:
        SnapshotError: it would be more.
    """
    body = _encoder.encode(header)
    if PROLOGUE.size + len(body) > _header_bytes(header.n_tokens):
        raise SnapshotError("its identity and key are too long")
    return PROLOGUE.pack(MAGIC, VERSION, len(body), xxh3_64_digest(body)) + body


def laid_out(header: SnapshotHeader) -> SnapshotHeader:
    """Return *header* with the offsets of its parts."""
    offset = _header_bytes(header.n_tokens)
    parts = []
    for part in header.parts:
        parts.append(replace(part, offset=offset))
        offset = _aligned(offset + part.size)
    return replace(header, parts=tuple(parts))


def snapshot_bytes(n_tokens: int, part_sizes: Sequence[int]) -> int:
    """Return how large a file is that holds *n_tokens* and parts of such *part_sizes*, bytes."""
    before = sum(_aligned(size) for size in part_sizes[:-1])
    return _header_bytes(n_tokens) + before + part_sizes[-1]


def snapshot_of(path: str | Path, header: SnapshotHeader) -> Snapshot:
    """Return what routers and workers tell each other of the snapshot at *path*."""
    return Snapshot(
        path=str(path),
        identity=header.identity,
        key=header.key,
        n_tokens=header.n_tokens,
        blocks=header.blocks,
        size_bytes=header.size_bytes,
        created_at=header.created_at,
    )


def _aligned(size: int) -> int:
    return size + -size % ALIGNMENT


def _header_bytes(n_tokens: int) -> int:
    """Return what lies before the first part."""
    per_token = _TOKEN_BYTES + _BLOCK_BYTES_PER_TOKEN
    return _aligned(PROLOGUE.size + _ABOUT_BYTES + n_tokens * per_token)
