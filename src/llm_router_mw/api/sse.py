"""Server-sent events to one client: keep-alive while silent, an end for a client that stalls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
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
from llm_router_mw.errors import ClientStalledError

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

    One watcher beside the sender does both timings, so that a chunk costs no timer of its own.
    """

    def __init__(self, connection: Connection, settings: APISettings) -> None:
        self._connection = connection
        self._stall_seconds = settings.client_stall_seconds
        self._keep_alive_seconds = settings.keep_alive_seconds
        self._comment_done: anyio.Event | None = None
        self._sending_since: float | None = None
        self._last_sent = 0.0

    async def run(self, chunks: AsyncGenerator[bytes]) -> None:
        """Send all *chunks*, then close them.

        Until the first one is there nothing is sent, so that an error before it is a plain HTTP
        error; a later one becomes the last event.

        Raises:
            Exception: what *chunks* raised before the first one.
            ClientStalledError: the client took nothing for too long; the line must be dropped.
            ClientDisconnectedError: the client has left.
        """
        async with aclosing(chunks):
            first = await anext(chunks, b"")
            self._last_sent = monotonic()
            await alongside(self._watch, lambda: self._send_all(first, chunks))

    async def _send_all(self, first: bytes, chunks: AsyncGenerator[bytes]) -> None:
        await self._send(first, start=True)
        try:
            async for chunk in chunks:
                await self._send(chunk)
        except ClientDisconnectedError:
            raise
        except Exception as error:
            await self._send(event(problem_body(as_problem(error))))
        await self._send(b"", more=False)

    async def _send(self, data: bytes, *, start: bool = False, more: bool = True) -> None:
        self._sending_since = monotonic()
        if self._comment_done is not None:
            await self._comment_done.wait()
        if start:
            await self._connection.start(200, HEADERS)
        await self._connection.write(data, more=more)
        self._sending_since = None
        self._last_sent = monotonic()

    async def _watch(self) -> None:
        while True:
            now = monotonic()
            if self._sending_since is not None:
                left = self._sending_since + self._stall_seconds - now
                if left <= 0:
                    raise self._stalled()
            else:
                left = self._last_sent + self._keep_alive_seconds - now
                if left <= 0:
                    await self._keep_alive()
                    continue
            # A send may begin or end meanwhile, so neither deadline may be slept over.
            await anyio.sleep(min(left, self._stall_seconds, self._keep_alive_seconds))

    async def _keep_alive(self) -> None:
        # Called only while no chunk is being sent; one that comes meanwhile waits for the comment.
        self._comment_done = anyio.Event()
        with anyio.move_on_after(self._stall_seconds) as scope:
            await self._connection.write(_COMMENT)
        if scope.cancelled_caught:
            raise self._stalled()
        self._comment_done.set()
        self._comment_done = None
        self._last_sent = monotonic()

    def _stalled(self) -> ClientStalledError:
        return ClientStalledError(
            f"the client took nothing for {self._stall_seconds:g} s; its request was cancelled"
        )
