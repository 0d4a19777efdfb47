"""Hosts of a shared router that say what a test tells them to."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.abc
import msgspec
from anyio.abc import UNIXSocketStream

from llm_router_mw.shared.meeting import Meeting
from llm_router_mw.shared.messages import (
    Answered,
    Ask,
    Granted,
    Ping,
    Start,
    ToHost,
    ToWeb,
    Welcome,
    host_decoder,
    web_decoder,
)
from llm_router_mw.shared.plan import Plan
from llm_router_mw.types import (
    ContentDelta,
    Delta,
    FinishDelta,
    LoadOptions,
    Model,
    ModelInfo,
    ModelView,
    RouterView,
    Usage,
)
from llm_router_mw.wire import Step, encode
from tests.support.waiting import SECONDS, until

MessageT = TypeVar("MessageT", bound=msgspec.Struct)

PID = 4711
OVERVIEW = RouterView(models_max=2, models_autoload=True)
INFO = ModelInfo(
    n_ctx=128,
    n_ctx_train=128,
    n_vocab=10,
    n_embd=2,
    n_params=100,
    size_bytes=400,
    n_parallel=4,
    load_seconds=0.1,
)
FINISH = FinishDelta("stop", Usage(prompt_tokens=1, completion_tokens=2))


def view(name: str) -> ModelView:
    """Return the picture of a model that is not loaded."""
    model = Model(id=name, path=f"/models/{name}.gguf", source="test", options=LoadOptions())
    return ModelView(model=model)


class PretendedHost:
    """The host's end of one connection. It welcomes, and then does only what it is told to."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self._decoder = host_decoder()
        self._heard: list[ToHost] = []
        self.all_heard: list[ToHost] = []
        """Everything but pings."""
        self.pings = 0

    async def hear(self, kind: type[MessageT]) -> MessageT:
        """Return the next message, which must be of that kind; pings are passed over."""
        with anyio.fail_after(SECONDS):
            while not self._heard:
                await self._listen()
        message = self._heard.pop(0)
        assert isinstance(message, kind), message
        return message

    async def hear_end(self) -> None:
        """Return when the web process has hung up."""
        with anyio.fail_after(SECONDS):
            try:
                while True:
                    await self._listen()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    async def say(self, *messages: ToWeb) -> None:
        """Send *messages*."""
        await self._stream.send(b"".join(map(encode, messages)))

    async def say_bytes(self, data: bytes) -> None:
        """Send what need not be a message."""
        await self._stream.send(data)

    async def answer(self, number: int, result: object) -> None:
        """Answer a verb."""
        await self.say(Answered(number, msgspec.Raw(msgspec.msgpack.encode(result))))

    async def grant(self) -> Ask:
        """Hear an ask and grant it."""
        ask = await self.hear(Ask)
        await self.say(Granted(ask.id, tuple((name, INFO) for name in ask.models)))
        return ask

    async def start(self, *deltas: Delta) -> Start:
        """Hear a start and answer it with *deltas*."""
        start = await self.hear(Start)
        await self.give(start, *deltas)
        return start

    async def give(self, start: Start, *deltas: Delta | str) -> None:
        """Let the stream of *start* have *deltas*; texts are content."""
        if deltas:
            each = (ContentDelta(d) if isinstance(d, str) else d for d in deltas)
            await self.say(Step([(start.id, delta) for delta in each]))

    async def die(self) -> None:
        """Be gone, as after a kill -9."""
        await anyio.aclose_forcefully(self._stream)

    async def _listen(self) -> None:
        for message in self._decoder.feed(await self._stream.receive()):
            if isinstance(message, Ping):
                self.pings += 1
            else:
                self._heard.append(message)
                self.all_heard.append(message)


class PretendedHosts:
    """Where hosts are met: each meeting is with a new one, unless it is to fail."""

    def __init__(self) -> None:
        self._seen = 0
        self.all: list[PretendedHost] = []
        self.failures: list[Exception] = []
        """Of the next meetings; the last one stays until it is taken away."""
        self.meetings = 0
        """Tried."""
        self.views = (view("a"), view("b"))
        self.gate: anyio.Event | None = None
        """Meetings wait for it."""

    async def meet(self, plan: Plan | None = None) -> Meeting:
        """As the real one."""
        self.meetings += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0) if len(self.failures) > 1 else self.failures[0]
        ours, theirs = [await UNIXSocketStream.from_socket(end) for end in socket.socketpair()]
        welcome = Welcome("1", PID, self.views, OVERVIEW)
        self.all.append(PretendedHost(theirs))
        return Meeting(ours, web_decoder(), welcome, PID)

    async def next(self) -> PretendedHost:
        """Return the host that has been met most recently, once that is not one that was seen."""
        seen = self._seen
        await until(lambda: len(self.all) > seen)
        self._seen = len(self.all)
        return self.all[-1]

    async def aclose(self) -> None:
        """Hang up everywhere."""
        for host in self.all:
            await host.die()


@asynccontextmanager
async def pretended_hosts() -> AsyncIterator[PretendedHosts]:
    """Hosts that hang up in the end."""
    hosts = PretendedHosts()
    try:
        yield hosts
    finally:
        await hosts.aclose()
