"""Server-sent events to one client: keep-alive while silent, an end for a client that stalls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from math import inf
from time import monotonic
from typing import Any

import anyio

from llm_router_mw.api.connection import (
    ClientDisconnectedError,
    Connection,
    alongside,
    encode_json,
)
from llm_router_mw.api.problem import as_problem, problem_body
from llm_router_mw.api.settings import APISettings
from llm_router_mw.api.waiting import Waiting
from llm_router_mw.errors import ClientStalledError
from llm_router_mw.lateness import TICKS, is_late

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
DONE = b"data: [DONE]\n\n"
_COMMENT = b":\n\n"


def event(content: Any) -> bytes:
    """Return *content* as one SSE event."""
    return b"data: %b\n\n" % encode_json(content)


class EventStream:
    """Sends the byte chunks of an iterator as they come.

    One watcher beside the sender does all timings, so that a chunk costs no timer of its own.
    """

    def __init__(
        self, connection: Connection, settings: APISettings, waiting: Waiting | None = None
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._waiting = waiting
        self._stall_seconds = settings.client_stall_seconds
        self._comment_done: anyio.Event | None = None
        self._sending_since: float | None = None
        self._last_sent = 0.0

    async def run(self, chunks: AsyncGenerator[bytes]) -> None:
        """Send all *chunks*, as ``send`` inside ``around``."""
        await self.around(lambda: self.send(chunks))

    async def around(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run *work*, which is to call ``send``, and meanwhile tell the client how things stand.

        Nothing is sent before the first chunk, so that an error before it is a plain HTTP error,
        unless the request was queued for a while: then the stream begins with comments. An error
        that comes when it has begun is the last event.

        Raises:
            Exception: what *work* raised before the stream began.
            ClientStalledError: the client took nothing for too long; the line must be dropped.
            ClientDisconnectedError: the client has left.
        """
        self._last_sent = monotonic()
        await alongside(self._watch, lambda: self._told(work))

    async def _told(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except ClientDisconnectedError:
            raise
        except Exception as error:
            if not self._connection.started:
                raise
            await self._send(event(problem_body(as_problem(error))))
            await self._send(b"", more=False)

    async def send(self, chunks: AsyncGenerator[bytes]) -> None:
        """Send all *chunks*, then close them and end the stream."""
        async with aclosing(chunks):
            async for chunk in chunks:
                await self._send(chunk)
        await self._send(b"", more=False)

    async def _send(self, data: bytes, *, more: bool = True) -> None:
        self._sending_since = monotonic()
        if self._comment_done is not None:
            await self._comment_done.wait()
        await self._write(data, more=more)
        self._sending_since = None
        self._last_sent = monotonic()

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if not self._connection.started:
            await self._connection.start(200, HEADERS)
        await self._connection.write(data, more=more)

    async def _watch(self) -> None:
        tick = self._stall_seconds / TICKS
        while True:
            now = monotonic()
            if self._sending_since is not None:
                left = self._sending_since + self._stall_seconds - now
                if left <= 0:
                    raise self._stalled()
            else:
                left = self._comment_due() - now
                if left <= 0:
                    await self._comment()
                    continue
            # Things may change meanwhile, so no deadline that may come up may be slept over.
            await anyio.sleep(min(left, tick, self._interval()))
            if is_late(monotonic() - now, tick) and self._sending_since is not None:
                # The app has blocked this loop: meanwhile the client could not be given anything.
                self._sending_since = monotonic()

    def _comment_due(self) -> float:
        if self._connection.started:
            return self._last_sent + self._interval()
        queued_at = None if self._waiting is None else self._waiting.queued_at
        return inf if queued_at is None else queued_at + self._settings.wait_patience_seconds

    def _interval(self) -> float:
        if not self._connection.started:
            return self._settings.wait_patience_seconds
        if self._waiting is not None and self._waiting.queued_at is not None:
            return self._settings.wait_comment_seconds
        return self._settings.keep_alive_seconds

    async def _comment(self) -> None:
        # Called only while no chunk is being sent; one that comes meanwhile waits for the comment.
        self._comment_done = anyio.Event()
        with anyio.move_on_after(self._stall_seconds) as scope:
            await self._write(_COMMENT if self._waiting is None else self._waiting.comment())
        if scope.cancelled_caught:
            raise self._stalled()
        self._comment_done.set()
        self._comment_done = None
        self._last_sent = monotonic()

    def _stalled(self) -> ClientStalledError:
        return ClientStalledError(
            f"the client took nothing for {self._stall_seconds:g} s; its request was cancelled"
        )
