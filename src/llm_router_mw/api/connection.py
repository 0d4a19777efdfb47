"""One client on the line: what it sent, whether it is still there, and how it is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qs

import anyio
import msgspec
from starlette.types import Message, Receive, Scope, Send

from llm_router_mw.errors import RequestTooLargeError

T = TypeVar("T")
Headers = Iterable[tuple[bytes, bytes]]

encode_json = msgspec.json.Encoder().encode


class ClientDisconnectedError(Exception):
    """The client has left; there is nobody to tell."""


class Connection:
    """The ASGI triple of one request.

    ``started`` says whether a status line has been sent; ``more_headers`` gives what goes with it
    whatever the answer is.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.started = False
        self.more_headers: Callable[[], Headers] = tuple
        self._receive = receive
        self._send = send

    async def body(self, limit: int) -> bytes:
        """Return the request body.

        Raises:
            RequestTooLargeError: it is over *limit* bytes.
            ClientDisconnectedError: the client left before it had sent everything.
        """
        receive = self.bounded(limit)
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnectedError
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    def bounded(self, limit: int) -> Receive:
        """Return what receives the request, and refuses a body over *limit* bytes.

        Raises:
            RequestTooLargeError: it says beforehand that it is.
        """
        for name, value in self.scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise _too_large(limit)
        size = 0

        async def receive() -> Message:
            nonlocal size
            message = await self._receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
            return message

        return receive

    def query(self, name: str) -> str | None:
        """Return the first value of the query parameter *name*."""
        query = self.scope.get("query_string", b"").decode("latin-1")
        return parse_qs(query, keep_blank_values=True).get(name, [None])[0] if query else None

    def header(self, name: str) -> str | None:
        """Return the first value of the request header *name*."""
        wanted = name.lower().encode()
        for key, value in self.scope["headers"]:
            if key == wanted:
                return bytes(value).decode("latin-1")
        return None

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line; the body follows by :meth:`write`."""
        self.started = True
        about = [*headers, *self.more_headers()]
        await self._emit({"type": "http.response.start", "status": status, "headers": about})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the body, the last one if not *more*."""
        await self._emit({"type": "http.response.body", "body": data, "more_body": more})

    async def respond(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a whole answer; JSON if it has a body."""
        about = [(b"content-length", b"%d" % len(body)), *headers]
        if body:
            about.append((b"content-type", b"application/json"))
        await self.start(status, about)
        await self.write(b"" if self.scope["method"] == "HEAD" else body, more=False)

    async def json(self, content: Any, status: int = 200) -> None:
        """Send *content* as JSON."""
        await self.respond(status, encode_json(content))

    async def while_connected(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run *work*, which is cancelled at once when the client leaves; read the body before.

        Raises:
            ClientDisconnectedError: it has left.
        """
        return await alongside(self._disconnected, work)

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnectedError

    async def _emit(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError as error:  # how an ASGI server says that the client has gone
            raise ClientDisconnectedError from error


async def alongside(
    companion: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[T]]
) -> T:
    """Run *work*, with *companion* beside it for as long; if one fails, the other is cancelled.

    Raises:
        Exception: what the first of them raised, by itself and not in a group.
    """
    failures: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            try:
                await companion()
            except Exception as error:
                failures.append(error)
                group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            result = await work()
        except Exception as error:
            failures.append(error)
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return result


def _too_large(limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"the body is over the limit of {limit} bytes; send less, or raise max_body_bytes"
    )
