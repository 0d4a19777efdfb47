"""The worker's end of the pipe, safe from whatever native code prints."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

from llm_router_mw import wire
from llm_router_mw.standard_streams import seize_standard_streams

_READ_BYTES = 1 << 18


class Channel:
    """Frames over two file descriptors. One thread reads, one writes."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = wire.worker_decoder()
        self._poll = select.poll()
        self._poll.register(reader, select.POLLIN)

    @classmethod
    def seize(cls) -> Channel:
        """Take standard input and output over."""
        return cls(*seize_standard_streams())

    def receive(self, timeout_seconds: float) -> Iterator[wire.ToWorker] | None:
        """Wait for data and return the messages that it completes, maybe none.

        Returns:
            None if the other end is closed.

        Raises:
            WireError: (while iterating) the router sent what the protocol does not allow.
        """
        if not self._poll.poll(timeout_seconds * 1000):
            return iter(())
        data = os.read(self._reader, _READ_BYTES)
        return self._decoder.feed(data) if data else None

    def send(self, message: wire.ToRouter) -> None:
        """Write *message*, however long the router takes to read it.

        Raises:
            BrokenPipeError: the router is gone.
        """
        frame = memoryview(wire.encode(message))
        while frame:
            frame = frame[os.write(self._writer, frame) :]
