"""A web process as a host sees it: a connection, and what was said on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.abc

from llm_router_mw.router import Router
from llm_router_mw.shared.host import Host
from llm_router_mw.shared.messages import (
    PROTOCOL,
    Ask,
    Granted,
    Greet,
    Inspect,
    Start,
    Status,
    ToHost,
    ToWeb,
    Welcome,
    web_decoder,
)
from llm_router_mw.shared.peer import Peer, peer_of
from llm_router_mw.testing import FakeEngine, make_router
from llm_router_mw.types import CompletionTask, Delta, FailureDelta, FinishDelta, Task, Wish
from llm_router_mw.wire import Step, encode

VERSION, FINGERPRINT = "1.0", "plan"
GREET = Greet(PROTOCOL, VERSION, FINGERPRINT, 4711)
HELLO = CompletionTask(prompt="hello")

T = TypeVar("T")


class WebProcess:
    """Says what a test tells it to, and keeps what it hears in order."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self.stream = stream
        self.heard: list[ToWeb] = []
        """What has come and was not looked for, the oldest first."""
        self._decoder = web_decoder()
        self._next_id = 0

    async def say(self, *messages: ToHost) -> None:
        """Send *messages* together."""
        await self.stream.send(b"".join(encode(message) for message in messages))

    async def next(self) -> ToWeb:
        """Return the next message."""
        while not self.heard:
            self.heard.extend(self._decoder.feed(await self.stream.receive()))
        return self.heard.pop(0)

    async def hear(self, kind: type[T]) -> T:
        """Return the next message of *kind*; what comes before it is dropped."""
        while not isinstance(message := await self.next(), kind):
            pass
        return message

    async def hung_up(self) -> None:
        """Return when the host has ended the connection."""
        with anyio.fail_after(10):
            try:
                while True:
                    await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return

    def number(self) -> int:
        """Return a number for a request."""
        self._next_id += 1
        return self._next_id

    async def ask(self, *models: str, tell_place: bool = False, **wishes: float | str) -> int:
        """Ask for *models*; return the number of the ask."""
        number = self.number()
        await self.say(Ask(number, models, Wish(**wishes), tell_place))  # type: ignore[arg-type]
        return number

    async def granted(self, *models: str) -> int:
        """Get leases of *models*; return the number of the ask."""
        number = await self.ask(*models)
        assert (await self.hear(Granted)).id == number
        return number

    async def start(
        self, ask: int, task: Task = HELLO, *, index: int = 0, release: bool = False
    ) -> int:
        """Start *task* under a lease; return the number of the stream."""
        number = self.number()
        await self.say(Start(number, ask, index, task, release))
        return number

    async def step(self) -> list[tuple[int, Delta]]:
        """Return the deltas of the next frame that holds some."""
        return (await self.hear(Step)).deltas

    async def answer(self, stream: int) -> list[Delta]:
        """Return what comes of a stream, the last delta included."""
        deltas: list[Delta] = []
        while not (deltas and isinstance(deltas[-1], FinishDelta | FailureDelta)):
            deltas.extend(delta for number, delta in await self.step() if number == stream)
        return deltas


class Address:
    """A host at a Unix socket."""

    def __init__(self, path: Path, router: Router) -> None:
        self.path = path
        self.router = router
        self.ended = anyio.Event()
        """The host has ended by itself."""
        self.given_up = 0
        """How often it gave the address up."""

    def give_up(self) -> None:
        self.given_up += 1

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[WebProcess]:
        """Connect and say nothing."""
        async with await anyio.connect_unix(self.path) as stream:
            yield WebProcess(stream)

    @asynccontextmanager
    async def welcomed(self, greet: Greet = GREET) -> AsyncIterator[WebProcess]:
        """Connect and be let in."""
        async with self.connected() as web:
            await web.say(greet)
            assert isinstance(await web.next(), Welcome)
            yield web

    async def status(self) -> Status:
        """Look at the host."""
        async with self.connected() as looker:
            await looker.say(Inspect())
            return await looker.hear(Status)

    async def deserted(self) -> None:
        """Return when the host has taken note that all have left."""
        with anyio.fail_after(10):
            while (await self.status()).web_processes:
                pass


@asynccontextmanager
async def hosting(
    folder: Path,
    fake_engine: FakeEngine | None = None,
    *plugins: object,
    grace_seconds: float = 60.0,
    peer: Callable[[anyio.abc.SocketStream], Peer] = peer_of,
    **options: Any,
) -> AsyncIterator[Address]:
    """Run a host whose models are pretended; *options* are its router's."""
    with anyio.fail_after(30):
        async with make_router(folder, *plugins, fake_engine=fake_engine, **options) as router:
            address = Address(folder / "host.sock", router)
            host = Host(
                router,
                await anyio.create_unix_listener(address.path),
                fingerprint=FINGERPRINT,
                version=VERSION,
                grace_seconds=grace_seconds,
                on_give_up=address.give_up,
                peer=peer,
            )

            async def run() -> None:
                await host.run()
                address.ended.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                yield address
                tasks.cancel_scope.cancel()
