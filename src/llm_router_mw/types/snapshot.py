"""What a context holds of conversations that are over, and the files in which that survives it."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

IDENTITY_SEPARATOR: Final = "#"
"""Between the path of the model's file and the rest of an identity."""


class SequenceInfo(Struct, frozen=True, kw_only=True):
    """What an idle slot of a context holds, and could be saved of it."""

    sequence: int
    key: str
    """Hash of the cache key (namespace and adapters): only equal ones see each other's tokens."""
    n_tokens: int
    blocks: bytes
    """Hashes of its beginnings, as :attr:`Snapshot.blocks`."""
    state_bytes: int
    """Bytes of the file that it would be saved in."""
    used_seconds_ago: float
    prefill_tokens_per_second: float | None = None
    """How fast the instance computes prompts; None where nothing has been measured."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """A file with the state of one sequence."""

    path: str
    identity: str
    """Of the model and its settings: with any other the state means nothing."""
    key: str
    n_tokens: int
    blocks: bytes
    """A hash for each full block of tokens, over all tokens up to its end; no secrets by it."""
    size_bytes: int
    created_at: float
    """Unix time."""

    @property
    def model_path(self) -> str:
        """The model's file, links resolved."""
        return self.identity.rpartition(IDENTITY_SEPARATOR)[0]

    def covers(self, other: Snapshot | SequenceInfo) -> bool:
        """Whether all of *other*, but for less than a block of tokens, is the beginning of this."""
        return self.key == other.key and bool(other.blocks) and self.blocks.startswith(other.blocks)


class Spare(Struct, frozen=True, kw_only=True):
    """A place for a file that a worker may write without asking again."""

    path: str
    limit_bytes: int
    """What the file may take at most."""


class StoredSnapshot(Struct, frozen=True, kw_only=True):
    """A snapshot in a store, as people are shown it."""

    model: str
    """Name of the model's file."""
    n_tokens: int
    size_bytes: int
    tier: str
    """Where it is: ``ram`` or ``disk``."""
    created_at: float
    """Unix time."""
    used_at: float
    """Unix time."""


class Purged(Struct, frozen=True, kw_only=True):
    """What a purge has removed."""

    snapshots: int = 0
    size_bytes: int = 0
