"""Whoever started the host, as seen from it: gives the order, and is told how it went."""

from __future__ import annotations

import os
from contextlib import suppress

from llm_router_mw import wire
from llm_router_mw.errors import WireError
from llm_router_mw.shared.order import Failed, Order, Ready, order_decoder
from llm_router_mw.standard_streams import seize_standard_streams

_READ_BYTES = 1 << 16


class Starter:
    """At the other ends of what were our standard input and output."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader = reader
        self._writer = writer
        self._held = [writer]
        """Descriptors that end with our answer."""

    @classmethod
    def seize(cls) -> Starter:
        """Take standard input and output over."""
        return cls(*seize_standard_streams())

    def order(self) -> Order:
        """Wait for the order and return it.

        Raises:
            WireError: the starter ended, or said something else.
        """
        decoder = order_decoder()
        while data := os.read(self._reader, _READ_BYTES):
            for order in decoder.feed(data):
                os.close(self._reader)
                os.set_inheritable(order.lock, False)  # workers are to have none of it
                self._held.append(order.lock)
                return order
        raise WireError("whoever started the host ended before it said what it should be")

    def tell(self, answer: Ready | Failed) -> None:
        """Answer the order, and let others look; after the first answer nobody listens."""
        if not self._held:
            return
        with suppress(BrokenPipeError):  # it has ended meanwhile; others may come
            os.write(self._writer, wire.encode(answer))
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()
