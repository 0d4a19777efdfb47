"""The requests that a worker has not finished, and whether it still works on them."""

from __future__ import annotations

from collections.abc import Iterable

import anyio

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.router.patience import Patience
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.types import Delta


class Requests:
    """Streams of one worker, by the numbers under which it knows them."""

    def __init__(self, stall_seconds: float) -> None:
        """A worker that has requests and says nothing for *stall_seconds* is stuck."""
        self.stall_seconds = stall_seconds
        self._streams: dict[int, RequestStream] = {}
        self._patience = Patience(stall_seconds)
        self._busy = anyio.Event()
        """There are requests; replaced when the last one is over."""
        self._idle = anyio.Event()
        """There are none any more; replaced when the next one comes."""

    def add(self, request_id: int, stream: RequestStream) -> None:
        """Let *stream* have what is said about the request."""
        if not self._streams:
            self._idle = anyio.Event()
            self._busy.set()
        self._streams[request_id] = stream

    def remove(self, request_id: int) -> None:
        """The request is over; unknown ones are over already."""
        if self._streams.pop(request_id, None) is not None and not self._streams:
            self._busy = anyio.Event()
            self._idle.set()

    def feed(self, deltas: Iterable[tuple[int, Delta]]) -> None:
        """Give out what a step of the worker has brought."""
        for request_id, delta in deltas:
            stream = self._streams.get(request_id)
            if stream is not None:  # else it was cancelled meanwhile
                stream.feed(delta)

    def fail(self, error: LLMRouterError) -> None:
        """End all requests with *error*."""
        for stream in list(self._streams.values()):
            stream.fail(error)

    def heard(self) -> None:
        """The worker gave a sign of life."""
        self._patience.heard()

    async def stuck(self) -> None:
        """Return once the worker has had requests and been silent for too long."""
        while True:
            await self._busy.wait()
            if not await self._patience.outlasts(self._idle):
                return
