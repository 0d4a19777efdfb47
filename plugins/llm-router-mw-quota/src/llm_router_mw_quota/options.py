"""What can be said about budgets."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from msgspec import Struct

NOBODY = "-"
"""The owner of requests that came without a key."""


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one owner may use in a day; None is any amount."""

    requests_per_day: int | None = None
    tokens_per_day: int | None = None


class Owner(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An owner with a name, and perhaps budgets of its own."""

    key: str = ""
    """The API key itself; or"""
    owner: str = ""
    """what :func:`owner_of` makes of it."""
    requests_per_day: int | None = None
    tokens_per_day: int | None = None

    @property
    def id(self) -> str:
        """How the router calls it."""
        return self.owner or owner_of(self.key)


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``plugin_options["quota"]``."""

    database: str = ""
    requests_per_day: int | None = None
    tokens_per_day: int | None = None
    owners: dict[str, Owner] = {}
    keep_days: int = 400

    def path(self) -> Path:
        """Return the file of the account."""
        return Path(self.database) if self.database else default_path()

    def budget(self, owner: str) -> Budget:
        """Return the budget of *owner*: its own where it has one."""
        requests, tokens = self.requests_per_day, self.tokens_per_day
        for named in self.owners.values():
            if named.id == owner:
                requests = _first(named.requests_per_day, requests)
                tokens = _first(named.tokens_per_day, tokens)
        return Budget(requests_per_day=requests, tokens_per_day=tokens)

    def name(self, owner: str) -> str:
        """Return how people call *owner*."""
        return next((name for name, named in self.owners.items() if named.id == owner), owner)


def owner_of(key: str) -> str:
    """Return what the router calls the users of API key *key*."""
    return sha256(key.encode()).hexdigest() if key else NOBODY


def default_path() -> Path:
    """Return the file of the account where none is named."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "llm-router-mw" / "quota.sqlite3"


def _first(own: int | None, common: int | None) -> int | None:
    return own if own is not None else common
