"""What the hub says of the files of a model."""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec import Struct


class HubFile(Struct, frozen=True):
    """A file of a repository."""

    path: str
    """In the repository, with ``/``."""
    size_bytes: int
    oid: str
    """Its hash in hexadecimal digits, under which it is cached."""

    def new_hash(self) -> Any:
        """Return a hash object that comes to ``oid`` when it is fed with the whole file."""
        # Large files have a SHA-256, small ones what git calls them by.
        if len(self.oid) == hashlib.sha256().digest_size * 2:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size_bytes, usedforsecurity=False)


class Plan(Struct, frozen=True):
    """The files that make one model, at one commit of its repository."""

    repo: str
    commit: str
    parts: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts together."""
        return sum(part.size_bytes for part in self.parts)
