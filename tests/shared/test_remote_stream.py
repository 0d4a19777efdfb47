"""An answer that survives the loss of its host, as long as nobody has read of it."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from llm_router_mw.errors import (
    HostDiedError,
    InvalidRequestError,
    ModelUnloadedError,
    QueueTimeoutError,
)
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.keeper import HOSTS_TRIED
from llm_router_mw.shared.remote_stream import RemoteStream
from llm_router_mw.types import ContentDelta, Delta, FinishDelta, Usage
from llm_router_mw.wire import Cancel, Credit
from tests.support.pretended_host import FINISH

pytestmark = pytest.mark.asyncio

LOST = HostDiedError("the host is gone")
CANCELLED = FinishDelta("cancelled", Usage())


class World:
    """Hosts, as a stream sees them: each start is another ``RequestStream``."""

    def __init__(self) -> None:
        self.sent: list[Credit | Cancel] = []
        self.inner: list[RequestStream] = []
        self.there_is_a_host = True
        self.renewed = 0
        self.renewal: Exception | None = None
        """How the next one fails."""
        self.gate: anyio.Event | None = None
        """Renewals wait for it."""
        self.as_it_renews: Callable[[], None] = lambda: None
        self.refusal: Exception | None = None
        """Of the next start."""
        self.over: list[RemoteStream] = []

    def start(self, on_finished: Callable[[], None]) -> RequestStream | None:
        if self.refusal is not None:
            raise self.refusal
        if not self.there_is_a_host:
            return None

        def finished() -> None:
            if self.there_is_a_host:
                on_finished()

        self.inner.append(
            RequestStream(len(self.inner), self.sent.append, finished, lambda stream: None)
        )
        return self.inner[-1]

    async def renew(self) -> None:
        self.renewed += 1
        if self.gate is not None:
            await self.gate.wait()
        self.as_it_renews()
        if self.renewal is not None:
            raise self.renewal
        self.there_is_a_host = True

    def lose(self) -> None:
        self.there_is_a_host = False
        if self.inner:
            self.inner[-1].fail(LOST)

    def stream(self) -> RemoteStream:
        return RemoteStream(self.start, self.renew, self.over.append)


async def read(stream: RemoteStream) -> list[Delta]:
    return [delta async for delta in stream]


async def test_it_gives_what_its_host_gives() -> None:
    world = World()
    stream = world.stream()
    world.inner[0].feed(ContentDelta("x"))
    assert (await anext(stream), world.over) == (ContentDelta("x"), [])
    world.inner[0].feed(FINISH)
    assert world.over == [stream]  # the host is done, read or not
    assert await read(stream) == [FINISH]
    assert stream.usage == FINISH.usage


async def test_a_host_that_is_lost_before_anything_was_read_is_replaced_unseen() -> None:
    world = World()
    stream = world.stream()
    answers: list[list[Delta]] = []
    async with anyio.create_task_group() as tasks:

        async def reader() -> None:
            answers.append(await read(stream))

        tasks.start_soon(reader)
        await anyio.wait_all_tasks_blocked()
        world.lose()
        await anyio.wait_all_tasks_blocked()
        assert (world.renewed, world.over) == (1, [])
        world.inner[1].feed(ContentDelta("x"))
        world.inner[1].feed(FINISH)
    assert answers == [[ContentDelta("x"), FINISH]]
    assert world.over == [stream]


async def test_one_that_is_begun_without_a_host_starts_when_it_is_read() -> None:
    world = World()
    world.there_is_a_host = False
    stream = world.stream()
    assert stream.usage == Usage()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, stream)
        await anyio.wait_all_tasks_blocked()
        world.inner[0].feed(FINISH)
    assert world.renewed == 1


async def test_one_of_which_something_was_read_ends_with_its_host() -> None:
    world = World()
    stream = world.stream()
    for text in ("x", "y"):
        world.inner[0].feed(ContentDelta(text))
    assert await anext(stream) == ContentDelta("x")
    world.lose()
    assert await anext(stream) == ContentDelta("y")  # what had come is given
    for _ in range(2):
        with pytest.raises(HostDiedError, match="is gone"):
            await anext(stream)
    assert (world.renewed, world.over) == (0, [stream])


async def test_one_that_has_come_whole_does_not_miss_its_host() -> None:
    world = World()
    stream = world.stream()
    world.inner[0].feed(ContentDelta("x"))
    world.inner[0].feed(FINISH)
    world.lose()
    assert await read(stream) == [ContentDelta("x"), FINISH]


async def test_one_that_ends_one_host_after_the_other_is_given_up() -> None:
    world = World()
    stream = world.stream()
    async with anyio.create_task_group() as tasks:

        async def die() -> None:
            for _ in range(HOSTS_TRIED):
                await anyio.wait_all_tasks_blocked()
                world.lose()

        tasks.start_soon(die)
        with pytest.raises(HostDiedError):
            await read(stream)
    assert (len(world.inner), world.over) == (HOSTS_TRIED, [stream])


async def test_it_ends_with_the_reason_when_no_host_can_be_had() -> None:
    world = World()
    stream = world.stream()
    world.lose()
    world.renewal = QueueTimeoutError("no room")
    for _ in range(2):
        with pytest.raises(QueueTimeoutError, match="no room"):
            await anext(stream)
    assert (world.renewed, world.over) == (1, [stream])


async def test_a_task_that_cannot_be_sent_is_refused_at_once() -> None:
    world = World()
    world.refusal = InvalidRequestError("no")
    with pytest.raises(InvalidRequestError):
        world.stream()


async def test_a_task_that_could_not_be_checked_at_once_is_refused_when_it_is_read() -> None:
    world = World()
    world.there_is_a_host = False
    stream = world.stream()
    world.refusal = InvalidRequestError("no")
    with pytest.raises(InvalidRequestError):
        await anext(stream)
    assert world.over == [stream]


async def test_cancelling_tells_the_host_which_has_the_last_word() -> None:
    world = World()
    stream = world.stream()
    stream.cancel()
    assert (world.sent, world.over) == ([Cancel(0)], [])
    world.inner[0].feed(CANCELLED)
    assert await read(stream) == [CANCELLED]
    stream.cancel()
    assert (world.sent, world.over) == ([Cancel(0)], [stream])


async def test_cancelling_with_a_reason_ends_it_at_once() -> None:
    world = World()
    stream = world.stream()
    stream.cancel(ModelUnloadedError("taken away"))
    assert world.over == [stream]
    with pytest.raises(ModelUnloadedError, match="taken away"):
        await anext(stream)


async def test_one_that_was_cancelled_is_not_started_again() -> None:
    world = World()
    stream = world.stream()
    stream.cancel()
    world.lose()
    assert await read(stream) == [CANCELLED]
    assert await read(stream) == []
    assert (world.renewed, world.over) == (0, [stream])


@pytest.mark.parametrize("reason", [None, ModelUnloadedError("taken away")])
async def test_cancelling_ends_the_waiting_for_a_host(reason: ModelUnloadedError | None) -> None:
    world = World()
    stream = world.stream()
    world.lose()
    world.gate = anyio.Event()
    outcomes: list[object] = []
    async with anyio.create_task_group() as tasks:

        async def reader() -> None:
            try:
                outcomes.append(await read(stream))
            except ModelUnloadedError as error:
                outcomes.append(error)

        tasks.start_soon(reader)
        await anyio.wait_all_tasks_blocked()
        stream.cancel(reason)
        assert world.over == [stream]
    assert outcomes == [reason or [CANCELLED]]
    assert len(world.inner) == 1


async def test_one_that_is_cancelled_before_it_has_a_host_never_starts() -> None:
    world = World()
    world.there_is_a_host = False
    stream = world.stream()
    stream.cancel()
    assert await read(stream) == [CANCELLED]
    assert (world.renewed, world.inner) == (0, [])


async def test_a_reader_that_is_cancelled_while_it_waits_for_a_host_may_come_again() -> None:
    world = World()
    stream = world.stream()
    world.lose()
    world.gate = anyio.Event()
    with anyio.move_on_after(0.01):
        await anext(stream)
    world.gate.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, stream)
        await anyio.wait_all_tasks_blocked()
        world.inner[1].feed(FINISH)
    assert world.renewed == 2


@pytest.mark.parametrize("renewal", [None, QueueTimeoutError("no room")])
async def test_one_that_is_cancelled_in_the_moment_in_which_it_has_a_host_never_starts(
    renewal: QueueTimeoutError | None,
) -> None:
    world = World()
    stream = world.stream()
    world.lose()
    world.renewal = renewal
    world.as_it_renews = stream.cancel
    assert await read(stream) == [CANCELLED]
    assert (len(world.inner), world.over) == (1, [stream])
