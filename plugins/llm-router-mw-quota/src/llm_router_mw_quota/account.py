"""What was used, by day, owner and model: one SQLite file that several processes may share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from llm_router_mw.types import Usage
from llm_router_mw_quota.options import Budget

_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS used (
    day TEXT NOT NULL,
    owner TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL DEFAULT 0,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, owner, model)
) WITHOUT ROWID
"""
_SPENT = """
SELECT coalesce(sum(requests), 0), coalesce(sum(prompt_tokens + completion_tokens), 0)
FROM used WHERE day = ? AND owner = ?
"""
_ADD = """
INSERT INTO used VALUES (:day, :owner, :model, :requests, :prompt, :completion)
ON CONFLICT DO UPDATE SET
    requests = requests + :requests,
    prompt_tokens = prompt_tokens + :prompt,
    completion_tokens = completion_tokens + :completion
"""
_GIVE_BACK = """
UPDATE used SET requests = requests - 1
WHERE day = ? AND owner = ? AND model = ? AND requests > 0
"""


class Entry(Struct, frozen=True):
    """What one owner used of one model in one day."""

    day: str
    owner: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


class Account:
    """The file *path*; made, with its directory, when it is first used. All calls use the disk.

    Raises:
        sqlite3.Error, OSError: it cannot be used.
    """

    def __init__(self, path: Path, keep_days: int) -> None:
        self._path = path
        self._keep_days = keep_days

    def take_request(self, day: str, owner: str, model: str, budget: Budget) -> str | None:
        """Count a request, if *budget* has room for it; return the name of what is used up else.

        Both happen in one transaction: two requests never share the last place.
        """
        with self._transaction() as connection:
            requests, tokens = connection.execute(_SPENT, (day, owner)).fetchone()
            if budget.requests_per_day is not None and requests >= budget.requests_per_day:
                return "requests"
            if budget.tokens_per_day is not None and tokens >= budget.tokens_per_day:
                return "tokens"
            self._add(connection, day, owner, model, requests=1)
            return None

    def add_tokens(self, day: str, owner: str, model: str, usage: Usage) -> None:
        """Count what an answer has used."""
        with self._transaction() as connection:
            self._add(connection, day, owner, model, usage=usage)

    def give_back(self, day: str, owner: str, model: str) -> None:
        """Take back a request that was not served, unless it was forgotten meanwhile."""
        with self._transaction() as connection:
            connection.execute(_GIVE_BACK, (day, owner, model))

    def entries(self, since: str = "") -> list[Entry]:
        """Return all entries from day *since* on, the latest day first."""
        query = "SELECT * FROM used WHERE day >= ? ORDER BY day DESC, owner, model"
        with self._transaction() as connection:
            return [Entry(*row) for row in connection.execute(query, (since,))]

    def reset(self, owner: str, day: str) -> int:
        """Forget what *owner* used on *day*; return how many entries that were."""
        with self._transaction() as connection:
            query = "DELETE FROM used WHERE owner = ? AND day = ?"
            return connection.execute(query, (owner, day)).rowcount

    def _add(
        self,
        connection: sqlite3.Connection,
        day: str,
        owner: str,
        model: str,
        *,
        requests: int = 0,
        usage: Usage | None = None,
    ) -> None:
        usage = usage or Usage()
        values = {"day": day, "owner": owner, "model": model, "requests": requests}
        values |= {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens}
        connection.execute(_ADD, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # A connection for each: calls come from any thread, and a closed file locks nobody out.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute(_SCHEMA)
            connection.execute("BEGIN IMMEDIATE")
            oldest = f"-{self._keep_days} days"
            connection.execute("DELETE FROM used WHERE day < date('now', ?)", (oldest,))
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()  # what was not committed is undone
