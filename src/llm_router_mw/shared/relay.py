"""One answer on its way from an engine to a web process."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.abc
import msgspec

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.protocols import DeltaStream
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.failures import failure_of
from llm_router_mw.types import Delta, FailureDelta, FinishDelta
from llm_router_mw.wire import INITIAL_CREDIT

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Delta)

Sink = Callable[[Delta], None]
"""Takes one delta after the other; the last one is a finish or a failure."""


class Relay(Protocol):
    """What a session does with an answer."""

    def forward(self, sink: Sink) -> None:
        """Hand what comes to *sink*."""
        ...

    def took(self, amount: int) -> None:
        """Note that the web process has read *amount* more deltas."""
        ...

    def cancel(self) -> None:
        """End the request at the engine's next step; harmless when it is over."""
        ...


class ReadRelay:
    """Reads an answer of any engine, in a task, as far ahead as the web process gave credit for."""

    def __init__(self, stream: DeltaStream, tasks: anyio.abc.TaskGroup) -> None:
        self._stream = stream
        self._tasks = tasks
        self._credit: float = INITIAL_CREDIT
        self._more = anyio.Event()

    def forward(self, sink: Sink) -> None:
        self._tasks.start_soon(self._read, sink)

    def took(self, amount: float) -> None:
        self._credit += amount
        self._more.set()

    def cancel(self) -> None:
        self._stream.cancel()
        self.took(math.inf)  # the web process need not read what is left for the end to come

    async def _read(self, sink: Sink) -> None:
        last: Delta | None = None
        try:
            async for last in self._stream:
                sink(_checked(last))
                if not isinstance(last, FinishDelta):  # which needs no credit, and earns none
                    self._credit -= 1
                    await self._some_credit()
            if not isinstance(last, FinishDelta):
                raise LLMRouterError("the engine ended the request without a result")
        except Exception as error:  # an engine's own failure must not end the session
            sink(FailureDelta(failure_of(error)))

    async def _some_credit(self) -> None:
        while self._credit <= 0:
            self._more = anyio.Event()
            await self._more.wait()


def _checked(delta: Delta) -> Delta:
    """Return *delta*; raises if a web process could not read it and would leave the host."""
    _decoder.decode(_encoder.encode(delta))
    return delta


def relay_of(stream: DeltaStream, tasks: anyio.abc.TaskGroup) -> Relay:
    """Return the relay of *stream*; if it needs a task, that is one of *tasks*.

    An answer of a worker of ours hands itself on, without a task that would have to wake for each
    delta, and lets the worker have the credit that the web process gives.
    """
    return stream if isinstance(stream, RequestStream) else ReadRelay(stream, tasks)
