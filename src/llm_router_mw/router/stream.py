"""The router's end of one request: a bounded buffer between the worker and a slow reader."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import anyio

from llm_router_mw.errors import ClientStalledError, LLMRouterError, error_from
from llm_router_mw.router.patience import Patience
from llm_router_mw.types import Delta, FailureDelta, FinishDelta, Usage
from llm_router_mw.wire import INITIAL_CREDIT, Cancel, Credit

Outbox = Callable[[Credit | Cancel], None]
"""Where a stream sends its messages to the worker."""
_CREDIT_SECONDS = 1.0
"""How long what was read of a full buffer may go untold."""


class RequestStream:
    """The answer to one task (a ``DeltaStream``).

    The worker may be ``INITIAL_CREDIT`` deltas ahead of the reader; then it pauses this request
    alone. A reader that takes nothing for ``stall_seconds`` while the buffer is full is cancelled,
    so that it can't hold an instance for ever.
    """

    def __init__(
        self,
        request_id: int,
        send: Outbox,
        on_finished: Callable[[], None],
        on_full: Callable[[RequestStream], None],
    ) -> None:
        self._id = request_id
        self._send = send
        self._on_finished = on_finished
        self._on_full = on_full
        self._buffer: deque[Delta] = deque()
        self._sink: Callable[[Delta], None] | None = None
        """Gets what comes, in place of the buffer."""
        self._reads = 0
        self._taken = 0
        self._unread = 0
        self._full_since = 0.0
        self._error: LLMRouterError | None = None
        self._finished = False
        self._cancelled = False
        self._usage = Usage()
        self._wake = anyio.Event()
        self._room = anyio.Event()

    @property
    def finished(self) -> bool:
        """Whether the worker no longer works on the request."""
        return self._finished

    @property
    def usage(self) -> Usage:
        """What the request has used, as the worker counted it at its end."""
        return self._usage

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> Delta:
        while not self._buffer:
            if self._error is not None:
                raise self._error
            if self._finished:
                raise StopAsyncIteration
            self._wake = anyio.Event()
            await self._wake.wait()
        delta = self._buffer.popleft()
        self.took(1)
        return delta

    def forward(self, sink: Callable[[Delta], None]) -> None:
        """Hand each delta to *sink* as it comes, a failure as the last one; nobody iterates then.

        Who gets them in the end says so by ``took``: until then they count as buffered.
        """
        self._sink = sink
        while self._buffer:
            sink(self._buffer.popleft())
        if self._error is not None:
            sink(FailureDelta(self._error.to_failure()))

    def took(self, amount: int) -> None:
        """Note that *amount* deltas have been read."""
        # Credit is given in batches: one message for many deltas. The finish needs and earns none.
        self._reads += amount
        self._taken += amount
        is_batch = self._taken >= INITIAL_CREDIT // 2
        if (is_batch or self._is_long_full) and not self._finished:
            self._send(Credit(self._id, self._taken))
            self._unread -= self._taken
            self._taken = 0
            self._room.set()

    def cancel(self, error: LLMRouterError | None = None) -> None:
        if not self._finished and not self._cancelled:
            self._cancelled = True
            self._send(Cancel(self._id))
        if error is not None:
            self.fail(error)

    def feed(self, delta: Delta) -> None:
        """Take a delta from the worker."""
        if self._finished:
            return
        if isinstance(delta, FailureDelta):
            self.fail(error_from(delta.failure))
            return
        if isinstance(delta, FinishDelta):
            # First of all: whoever gets the last delta may end what ran, and finds it over.
            self._usage = delta.usage
            self._finish()
        else:
            self._note_unread()
        if self._sink is None:
            self._buffer.append(delta)
            self._wake.set()
        else:
            self._sink(delta)

    def fail(self, error: LLMRouterError) -> None:
        """End the request with *error*; what was buffered is still read first."""
        if self._error is None and not self._finished:
            self._error = error
            self._finish()
            self._wake.set()
            if self._sink is not None:
                self._sink(FailureDelta(error.to_failure()))

    async def watch_stall(self, stall_seconds: float) -> None:
        """Cancel the request if its reader takes nothing for *stall_seconds* while it is full."""
        room = self._room
        while not room.is_set():
            reads = self._reads
            if not await Patience(stall_seconds).outlasts(room) and self._reads == reads:
                self.cancel(
                    ClientStalledError(
                        f"nothing was read for {stall_seconds:g} s; request cancelled"
                    )
                )

    def _note_unread(self) -> None:
        self._unread += 1
        if self._unread == INITIAL_CREDIT:
            self._full_since = time.monotonic()
            self._room = anyio.Event()
            self._on_full(self)

    @property
    def _is_long_full(self) -> bool:
        """Whether credit is due though little was read: else a slow reader would seem to stall."""
        is_full = self._unread >= INITIAL_CREDIT
        return is_full and time.monotonic() - self._full_since >= _CREDIT_SECONDS

    def _finish(self) -> None:
        self._finished = True
        self._room.set()
        self._on_finished()
