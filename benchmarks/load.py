"""A client that sends many requests at once and notes when which bytes came; it reads them later.

One thread, plain sockets and no parsing while the clock runs: the client shares the machine's
cores with the server that it measures.
"""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

_READ_BYTES: Final = 1 << 16
_CONNECT_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Request:
    """A POST request, and when to send it."""

    path: str
    body: bytes
    after_seconds: float = 0.0
    """After the first one was sent."""
    after_pieces: int = 0
    """Not before each request without such a condition has so many pieces of its answer, or all."""
    ends_all: bool = False
    """When its answer is complete, whatever else still runs is cut off."""
    follows: int | None = None
    """Not before the answer to the request at this place in the list is complete."""


@dataclass
class Exchange:
    """A request that was sent, and the bytes that came back."""

    request: Request
    sent_at: float = 0.0
    """When it was to be sent; it was, unless it was held back."""
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    """Time and bytes of each read."""
    cut_off: bool = False
    """Whether the client ended it."""
    complete: bool = False
    """Whether the server ended it."""


def exchange(
    port: int,
    requests: list[Request],
    timeout_seconds: float = 1800.0,
    *,
    one_at_a_time: bool = False,
) -> list[Exchange]:
    """Send *requests* to the local *port* and return what came, in their order.

    With *one_at_a_time* each is held back until those that came before it are answered.

    Raises:
        TimeoutError: the answers took longer than *timeout_seconds*.
    """
    return _Client(port, requests, one_at_a_time=one_at_a_time).run(timeout_seconds)


class _Client:
    def __init__(self, port: int, requests: list[Request], *, one_at_a_time: bool) -> None:
        self._port = port
        self._one_at_a_time = one_at_a_time
        self._exchanges = [Exchange(request) for request in requests]
        self._waiting = list(self._exchanges)
        self._held_back: list[Exchange] = []
        """Those whose time has come, and not their turn."""
        self._open: dict[socket.socket, Exchange] = {}
        self._selector = selectors.DefaultSelector()
        self._started_at = 0.0

    def run(self, timeout_seconds: float) -> list[Exchange]:
        self._started_at = perf_counter()
        try:
            while self._waiting or self._held_back or self._open:
                self._send_due()
                self._receive()
                if perf_counter() - self._started_at > timeout_seconds:
                    raise TimeoutError(f"no answer within {timeout_seconds:g} s")
        finally:
            self._cut_off()
            self._selector.close()
        return self._exchanges

    def _send_due(self) -> None:
        for exchange in [each for each in self._waiting if self._is_due(each.request)]:
            self._waiting.remove(exchange)
            if self._one_at_a_time:
                exchange.sent_at = perf_counter()
                self._held_back.append(exchange)
            else:
                self._send(exchange)
        if self._held_back and not self._open:
            self._send(self._held_back.pop(0))

    def _is_due(self, request: Request) -> bool:
        if perf_counter() - self._started_at < request.after_seconds:
            return False
        if request.follows is not None and not self._exchanges[request.follows].complete:
            return False
        return not request.after_pieces or all(
            len(each.pieces) >= request.after_pieces or each.complete
            for each in self._exchanges
            if not each.request.after_pieces
        )

    def _send(self, exchange: Exchange) -> None:
        request = exchange.request
        head = (
            f"POST {request.path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(request.body)}\r\n\r\n"
        )
        exchange.sent_at = exchange.sent_at or perf_counter()
        connection = socket.create_connection(("127.0.0.1", self._port), _CONNECT_SECONDS)
        connection.sendall(head.encode() + request.body)
        connection.setblocking(False)
        self._open[connection] = exchange
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            # A read of an earlier one may have cut this one off.
            if connection in self._open:
                self._read(connection)

    def _patience(self) -> float:
        """Return for how many seconds nothing has to be sent."""
        now = perf_counter() - self._started_at
        times = [each.request.after_seconds for each in self._waiting]
        return min((max(0.0, time - now) for time in times if time > now), default=1.0)

    def _read(self, connection: socket.socket) -> None:
        exchange = self._open[connection]
        data = connection.recv(_READ_BYTES)
        if data:
            exchange.pieces.append((perf_counter(), data))
            return
        exchange.complete = True
        self._close(connection)
        if exchange.request.ends_all:
            self._cut_off()

    def _cut_off(self) -> None:
        self._waiting.clear()
        self._held_back.clear()
        for connection in tuple(self._open):
            self._open[connection].cut_off = True
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
        del self._open[connection]
