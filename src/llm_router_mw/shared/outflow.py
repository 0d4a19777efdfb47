"""The way to one web process: what is for it is collected here, and sent as fast as it reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import ByteSendStream
from msgspec import Struct

from llm_router_mw.types import Delta
from llm_router_mw.wire import Step, encode

_FULL_BYTES = 1024 * 1024
"""What may wait for a web process before it is asked less and told nothing new."""
_STEP_DELTAS = 1024
"""In one frame at most: it has to be received as a whole before the first of them is of use."""


class Outflow:
    """Takes messages at once and sends them in ``run``, as many as there are together.

    Nobody waits for a web process that does not read. Deltas of its streams are bounded by their
    credit, answers by ``room``, and news that it has no room for is left out: when it reads again,
    it is told how things stand instead.
    """

    def __init__(
        self, stream: ByteSendStream, recapitulate: Callable[[], Awaitable[tuple[Struct, ...]]]
    ) -> None:
        self._stream = stream
        self._recapitulate = recapitulate
        """Returns messages that make up for all news that was left out."""
        self._frames: list[bytes] = []
        self._n_bytes = 0
        """Of frames that are not sent yet."""
        self._deltas: list[tuple[int, Delta]] = []
        self._left_out = False
        self._filled = anyio.Event()
        self._drained = anyio.Event()

    @property
    def full(self) -> bool:
        """Whether more waits than a web process that reads would let wait."""
        return self._n_bytes >= _FULL_BYTES

    def send(self, message: Struct) -> None:
        """Send *message*; it is an answer."""
        self._add(encode(message))

    def send_delta(self, stream_id: int, delta: Delta) -> None:
        """Send *delta*, in one frame with those of all other streams that come at the same time."""
        if not self._deltas:
            self._filled.set()
        self._deltas.append((stream_id, delta))

    def tell(self, frame: bytes) -> None:
        """Send *frame*, which holds news, unless the web process is far behind."""
        if self.full:
            self._left_out = True
        else:
            self._add(frame)

    async def room(self) -> None:
        """Return when there is room for answers."""
        while self.full:
            await self._drained.wait()

    async def run(self) -> None:
        """Send what there is and what comes.

        Raises:
            anyio.BrokenResourceError: the web process is gone.
        """
        while True:
            await self._filled.wait()
            self._filled = anyio.Event()
            await self._send_all()
            if self._left_out and not self.full:
                self._left_out = False
                for message in await self._recapitulate():
                    self.send(message)

    def _add(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._n_bytes += len(frame)
        self._filled.set()

    async def _send_all(self) -> None:
        frames, self._frames = self._frames, []
        deltas, self._deltas = self._deltas, []
        n_bytes = self._n_bytes
        for first in range(0, len(deltas), _STEP_DELTAS):
            frames.append(encode(Step(deltas[first : first + _STEP_DELTAS])))
        await self._stream.send(b"".join(frames))
        self._n_bytes -= n_bytes
        self._drained.set()
        self._drained = anyio.Event()
