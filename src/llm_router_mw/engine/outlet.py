"""Where a request's deltas leave the engine, as far as its reader's credit goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from llm_router_mw.types import ContentDelta, Delta, FailureDelta, FinishDelta

Sink = list[tuple[int, Delta]]
"""Deltas of all requests, in the order in which they leave."""


class Outlet:
    """Counts the credit of one request, and keeps what has to wait for more of it."""

    def __init__(self, request_id: int, credit: int, sink: Sink) -> None:
        self.request_id = request_id
        self._credit = credit
        self._sink = sink
        self._pending: deque[Delta] = deque()
        self._last: FinishDelta | FailureDelta | None = None
        self.closed = False
        """Whether the last delta has left."""

    @property
    def room(self) -> int:
        """Deltas that may be written now and leave at once."""
        return 0 if self._pending else max(self._credit, 0)

    @property
    def ended(self) -> bool:
        """Whether the last delta has been written, though it may still have to wait."""
        return self._last is not None

    def write(self, deltas: Iterable[Delta]) -> None:
        """Take *deltas*; text that comes before the next :meth:`flush` is put together."""
        pending = self._pending
        for delta in deltas:
            last = pending[-1] if pending else None
            if isinstance(delta, ContentDelta) and isinstance(last, ContentDelta):
                pending[-1] = ContentDelta(last.text + delta.text, last.logprobs + delta.logprobs)
            else:
                pending.append(delta)

    def end(self, last: FinishDelta | FailureDelta) -> None:
        """Take the last delta, which needs no credit; a second one is ignored."""
        self._last = self._last or last

    def discard(self) -> None:
        """Throw away what waits, except for the last delta."""
        self._pending.clear()

    def add_credit(self, amount: int) -> None:
        """The reader took *amount* deltas."""
        self._credit += amount

    def flush(self) -> None:
        """Let out what the credit allows, and the last delta after all others."""
        pending = self._pending
        while pending and self._credit > 0:
            self._credit -= 1
            self._sink.append((self.request_id, pending.popleft()))
        if self._last is not None and not pending and not self.closed:
            self.closed = True
            self._sink.append((self.request_id, self._last))
