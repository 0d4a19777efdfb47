"""The way to one web process: together what comes together, and nobody waits for a slow reader."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest
from msgspec import Struct

from llm_router_mw.shared.messages import GivenUp, Pong, ToWeb, web_decoder
from llm_router_mw.shared.outflow import Outflow
from llm_router_mw.types import ContentDelta, Delta
from llm_router_mw.wire import Step, encode
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

MUCH = ContentDelta("x" * 1024 * 1024)
RECAPITULATION = GivenUp()
NEWS = Pong()


class Pipe(anyio.abc.ByteSendStream):
    """Keeps what is sent; it can be held, as by somebody who does not read."""

    def __init__(self) -> None:
        self.sends: list[list[ToWeb]] = []
        """The messages of each write."""
        self.held = anyio.Event()
        self.held.set()
        self.broken = False
        self._decoder = web_decoder()

    def hold(self) -> None:
        self.held = anyio.Event()

    async def send(self, item: bytes) -> None:
        if self.broken:
            raise anyio.BrokenResourceError
        await self.held.wait()
        self.sends.append(list(self._decoder.feed(item)))

    async def aclose(self) -> None: ...

    @property
    def messages(self) -> list[ToWeb]:
        return [message for messages in self.sends for message in messages]


async def recapitulate() -> tuple[Struct, ...]:
    return (RECAPITULATION,)


@asynccontextmanager
async def flowing() -> AsyncIterator[tuple[Outflow, Pipe]]:
    """Run an outflow into a pipe."""
    pipe = Pipe()
    outflow = Outflow(pipe, recapitulate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outflow.run)
        await anyio.lowlevel.checkpoint()
        yield outflow, pipe
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def stuck() -> AsyncIterator[tuple[Outflow, Pipe]]:
    """Run an outflow to somebody who does not read and has been sent a lot."""
    async with flowing() as (outflow, pipe):
        pipe.hold()
        outflow.send(Step([(1, MUCH)]))
        await until(lambda: outflow.full)
        yield outflow, pipe


async def test_deltas_of_one_turn_make_one_frame() -> None:
    deltas: list[tuple[int, Delta]] = [(n, ContentDelta(str(n))) for n in range(50)]
    async with flowing() as (outflow, pipe):
        for number, delta in deltas:
            outflow.send_delta(number, delta)
        await until(lambda: pipe.sends)
    assert pipe.sends == [[Step(deltas)]]


async def test_messages_keep_their_order_and_go_out_together() -> None:
    async with flowing() as (outflow, pipe):
        outflow.send(Pong())
        outflow.tell(encode(GivenUp()))
        outflow.send(Pong())
        await until(lambda: pipe.sends)
    assert pipe.sends == [[Pong(), GivenUp(), Pong()]]


async def test_what_comes_while_somebody_reads_slowly_goes_out_together() -> None:
    async with flowing() as (outflow, pipe):
        pipe.hold()
        for turn in range(3):
            outflow.send_delta(1, ContentDelta(str(turn)))
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
        pipe.held.set()
        await until(lambda: len(pipe.sends) == 2)
    assert [len(step.deltas) for step in pipe.messages if isinstance(step, Step)] == [1, 2]


async def test_a_frame_holds_a_limited_number_of_deltas() -> None:
    async with flowing() as (outflow, pipe):
        for _ in range(2500):
            outflow.send_delta(1, ContentDelta("x"))
        await until(lambda: pipe.sends)
    steps = [step for step in pipe.messages if isinstance(step, Step)]
    assert [len(step.deltas) for step in steps] == [1024, 1024, 452]


async def test_who_does_not_read_is_asked_to_make_room_first() -> None:
    async with stuck() as (outflow, pipe), anyio.create_task_group() as tasks:
        there_is_room = anyio.Event()

        async def wait_for_room() -> None:
            await outflow.room()
            there_is_room.set()

        tasks.start_soon(wait_for_room)
        await anyio.lowlevel.checkpoint()
        assert not there_is_room.is_set()
        pipe.held.set()
        with anyio.fail_after(10):
            await there_is_room.wait()
        assert not outflow.full


async def test_news_are_left_out_for_who_does_not_read_and_made_up_for_once() -> None:
    async with stuck() as (outflow, pipe):
        for _ in range(1000):
            outflow.tell(encode(NEWS))
        pipe.held.set()
        await until(lambda: len(pipe.messages) == 2)
        outflow.tell(encode(NEWS))
        await until(lambda: len(pipe.messages) == 3)
    assert pipe.messages[1:] == [RECAPITULATION, NEWS]


async def test_answers_are_not_left_out() -> None:
    async with stuck() as (outflow, pipe):
        outflow.send(Pong())
        pipe.held.set()
        await until(lambda: len(pipe.messages) == 2)
    assert pipe.messages[1:] == [Pong()]


async def test_the_end_of_a_web_process_is_told() -> None:
    pipe = Pipe()
    pipe.broken = True
    outflow = Outflow(pipe, recapitulate)
    outflow.send(Pong())
    with pytest.raises(anyio.BrokenResourceError):
        await outflow.run()
