"""One web process at the host: what it waits for and what it holds, until it is gone."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import partial

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec

from llm_router_mw.errors import LeaseExpiredError, WireError
from llm_router_mw.protocols import LeaseContract
from llm_router_mw.router import Router
from llm_router_mw.shared.failures import failure_of
from llm_router_mw.shared.messages import (
    Abandon,
    Answered,
    Ask,
    GiveUp,
    Granted,
    Greet,
    Inspect,
    Ping,
    Pong,
    Queued,
    Refused,
    Release,
    Start,
    ToHost,
    Verb,
)
from llm_router_mw.shared.news import News
from llm_router_mw.shared.outflow import Outflow
from llm_router_mw.shared.relay import Relay, relay_of
from llm_router_mw.shared.verbs import carry_out
from llm_router_mw.types import Delta, FailureDelta, FinishDelta, QueuePlace
from llm_router_mw.wire import Cancel, Credit, Decoder

logger = logging.getLogger("llm_router_mw.shared")

_encoder = msgspec.msgpack.Encoder()
_ENDS = (FinishDelta, FailureDelta)


class Session:
    """Serves one web process that has been let in. When it is gone, all that it had is given back.

    *pid* is its number, *decoder* holds what it has sent already.
    """

    def __init__(
        self,
        router: Router,
        stream: anyio.abc.ByteStream,
        decoder: Decoder[ToHost],
        news: News,
        pid: int,
    ) -> None:
        self.pid = pid
        self._router = router
        self._stream = stream
        self._decoder = decoder
        self._news = news
        self._outflow = Outflow(stream, news.recapitulate)
        self._tasks: anyio.abc.TaskGroup
        self._waiting: dict[int, anyio.CancelScope] = {}
        """What is to be answered, by the numbers of the requests."""
        self._leases: dict[int, dict[int, LeaseContract]] = {}
        """What is held, by the numbers of the asks and the indices in their answers."""
        self._relays: dict[int, Relay] = {}
        """Answers on their way, by the numbers of the starts."""

    async def run(self, version: str) -> None:
        """Welcome the web process and serve it until it is gone or has broken the protocol."""
        try:
            async with anyio.create_task_group() as self._tasks:
                self._news.add(self._outflow, version, os.getpid())
                self._tasks.start_soon(self._write)
                await self._read()
                self._tasks.cancel_scope.cancel()
        finally:
            self._news.remove(self._outflow)
            for ask in tuple(self._leases):
                self._release_all(ask)

    async def _write(self) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._outflow.run()
        self._tasks.cancel_scope.cancel()

    async def _read(self) -> None:
        data = b""  # what was decoded together with the greeting may be complete already
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                try:
                    for message in self._decoder.feed(data):
                        self._take(message)
                except WireError as error:
                    logger.warning(
                        "web process %d broke the protocol (%s); its connection is ended",
                        self.pid,
                        error,
                    )
                    return
                await self._outflow.room()
                data = await self._stream.receive()

    def _take(self, message: ToHost) -> None:
        match message:
            case Credit(id, amount):
                if (found := self._relays.get(id)) is not None:
                    found.took(amount)
            case Cancel(id):
                if (found := self._relays.get(id)) is not None:
                    found.cancel()
            case Start():
                self._start(message)
            case Release(ask, index):
                self._release(ask, index)
            case Abandon(id):
                self._abandon(id)
            case Ping():
                self._outflow.send(Pong())
            case Greet() | GiveUp() | Inspect():
                raise WireError(f"{type(message).__name__} is of no use once one is connected")
            case _:
                self._answer_soon(message)

    # Requests

    def _answer_soon(self, request: Ask | Verb) -> None:
        if request.id in self._waiting or request.id in self._leases:
            raise WireError(f"number {request.id} is given out already")
        if isinstance(request, Ask) and not request.models:
            raise WireError(f"ask {request.id} is for no model")
        scope = self._waiting[request.id] = anyio.CancelScope()
        self._tasks.start_soon(self._answer, request, scope)

    async def _answer(self, request: Ask | Verb, scope: anyio.CancelScope) -> None:
        answer: Granted | Answered | Refused
        try:
            with scope:
                if isinstance(request, Ask):
                    answer = await self._granted(request)
                else:
                    answer = await self._done(request)
        except Exception as error:
            answer = Refused(request.id, failure_of(error))
        finally:
            del self._waiting[request.id]
            self._news.note()
        if scope.cancel_called:  # perhaps too late to keep it from being granted
            self._release_all(request.id)
        else:
            self._outflow.send(answer)

    async def _granted(self, ask: Ask) -> Granted:
        told = partial(self._tell_place, ask.id) if ask.tell_place else None
        self._news.note()
        leases = await self._router.leases(ask.models, ask.wish, on_queued=told)
        self._leases[ask.id] = dict(enumerate(leases))
        return Granted(ask.id, tuple((lease.model, lease.info) for lease in leases))

    def _tell_place(self, ask: int, place: QueuePlace) -> None:
        if not self._outflow.full:  # else it is told once it has changed
            self._outflow.send(Queued(ask, place))
        self._news.note()

    async def _done(self, verb: Verb) -> Answered:
        result = msgspec.Raw(_encoder.encode(await carry_out(verb, self._router)))
        # Who has waited for a change sees it: events that came with it are told first, by a task
        # that was woken before this one, and then what they do not tell.
        await anyio.lowlevel.checkpoint()
        self._news.push()
        return Answered(verb.id, result)

    def _abandon(self, request: int) -> None:
        if (scope := self._waiting.get(request)) is not None:
            scope.cancel()
        self._release_all(request)

    # Leases

    def _start(self, start: Start) -> None:
        if start.id in self._relays:
            raise WireError(f"number {start.id} is given out already")
        lease = self._leases.get(start.ask, {}).get(start.index)
        try:
            if lease is None:
                raise LeaseExpiredError("the lease has been released; acquire the model again")
            stream = lease.stream(start.task, release=start.release)
        except Exception as error:
            self._outflow.send_delta(start.id, FailureDelta(failure_of(error)))
            if start.release:
                self._release(start.ask, start.index)
            return
        relay = self._relays[start.id] = relay_of(stream, self._tasks)
        relay.forward(partial(self._hand_on, start))

    def _hand_on(self, start: Start, delta: Delta) -> None:
        if start.id not in self._relays:  # a plugin's engine that goes on after its end
            return
        self._outflow.send_delta(start.id, delta)
        if isinstance(delta, _ENDS):
            del self._relays[start.id]
            if start.release:
                self._release(start.ask, start.index)
            self._news.note()

    def _release(self, ask: int, index: int) -> None:
        leases = self._leases.get(ask, {})
        if (lease := leases.pop(index, None)) is not None:
            lease.release()
            self._news.note()
        if not leases:
            self._leases.pop(ask, None)

    def _release_all(self, ask: int) -> None:
        for index in tuple(self._leases.get(ask, ())):
            self._release(ask, index)
