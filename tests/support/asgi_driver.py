"""A client of an ASGI application that decides itself what it sends, takes and when it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
from starlette.types import ASGIApp, Message, Scope

Headers = Iterable[tuple[bytes, bytes]]


def http_scope(method: str, path: str, headers: Headers = (), **more: Any) -> Scope:
    """Return the scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": list(headers),
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
        **more,
    }


class Client:
    """One request, and what came back.

    Args:
        parts: the body, in the messages in which it arrives.
        leaves_after: disconnect once so many messages have been taken; None stays.
        stalls_after: take no message after so many.
        breaks_after: raise OSError instead of taking a message after so many.
    """

    def __init__(
        self,
        scope: Scope,
        parts: Iterable[bytes] = (b"",),
        *,
        leaves_after: int | None = None,
        stalls_after: int | None = None,
        breaks_after: int | None = None,
    ) -> None:
        self.scope = scope
        self.gone = anyio.Event()
        self.messages: list[Message] = []
        self.on_message: Callable[[], None] = lambda: None
        pieces = list(parts)
        self._incoming = [
            {"type": "http.request", "body": piece, "more_body": index < len(pieces) - 1}
            for index, piece in enumerate(pieces)
        ]
        self._leaves_after = leaves_after
        self._stalls_after = stalls_after
        self._breaks_after = breaks_after

    async def receive(self) -> Message:
        if self._incoming:
            return self._incoming.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if len(self.messages) == self._stalls_after:
            await anyio.sleep_forever()
        if len(self.messages) == self._breaks_after:
            raise OSError("broken pipe")
        self.messages.append(message)
        self.on_message()
        if len(self.messages) == self._leaves_after:
            self.gone.set()
        await anyio.lowlevel.checkpoint()

    async def run(self, app: ASGIApp) -> Client:
        """Make the request of *app*."""
        with anyio.fail_after(10):
            await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.messages[0]["headers"]}

    @property
    def pieces(self) -> list[bytes]:
        """The parts of the body as they came."""
        return [message["body"] for message in self.messages[1:]]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def complete(self) -> bool:
        return not self.messages[-1].get("more_body", True)

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> Any:
        """What an error body says."""
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """The data of all SSE events; ``[DONE]`` as it is."""
        texts = [text for text in self.body.decode().split("\n\n") if text.startswith("data: ")]
        data = [text.removeprefix("data: ") for text in texts]
        return [item if item == "[DONE]" else msgspec.json.decode(item) for item in data]


async def get(app: ASGIApp, path: str, method: str = "GET", **more: Any) -> Client:
    """Make a request without a body."""
    return await Client(http_scope(method, path, **more)).run(app)


async def post(app: ASGIApp, path: str, content: Any, **more: Any) -> Client:
    """Send *content*: bytes as they are, anything else as JSON."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return await Client(http_scope("POST", path, **more), [body]).run(app)
