"""The router's end of one request: credit, order, ends, and readers that stall."""

from __future__ import annotations

import time

import anyio
import pytest

from llm_router_mw.errors import (
    ClientStalledError,
    ModelLoadError,
    ModelUnloadedError,
    WorkerDiedError,
)
from llm_router_mw.router import stream as stream_file
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.types import ContentDelta, Delta, Failure, FailureDelta, FinishDelta, Usage
from llm_router_mw.wire import INITIAL_CREDIT, Cancel, Credit
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

BATCH = INITIAL_CREDIT // 2
FINISH = FinishDelta("stop", Usage())


class Wire:
    """What a stream sent, and how often it said that it was finished or full."""

    def __init__(self) -> None:
        self.sent: list[Credit | Cancel] = []
        self.finished = 0
        self.full = 0
        self.stream = RequestStream(7, self.sent.append, self._on_finished, self._on_full)

    def _on_finished(self) -> None:
        self.finished += 1

    def _on_full(self, stream: RequestStream) -> None:
        assert stream is self.stream
        self.full += 1

    def feed(self, count: int) -> None:
        for number in range(count):
            self.stream.feed(ContentDelta(str(number)))

    async def read(self, count: int) -> None:
        for _ in range(count):
            await anext(self.stream)


async def test_deltas_come_in_their_order_and_then_the_stream_stops() -> None:
    wire = Wire()
    wire.feed(3)
    wire.stream.feed(FINISH)
    texts = [delta async for delta in wire.stream]
    assert texts == [ContentDelta("0"), ContentDelta("1"), ContentDelta("2"), FINISH]
    assert wire.stream.finished
    assert wire.finished == 1
    assert wire.sent == []


async def test_a_reader_that_is_ahead_waits_for_the_next_delta() -> None:
    wire = Wire()
    read: list[object] = []

    async def reader() -> None:
        read.extend([delta async for delta in wire.stream])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        await anyio.lowlevel.checkpoint()
        wire.feed(1)
        await anyio.lowlevel.checkpoint()
        wire.stream.feed(FINISH)
    assert read == [ContentDelta("0"), FINISH]


async def test_credit_is_given_back_in_batches() -> None:
    wire = Wire()
    wire.feed(BATCH)
    await wire.read(BATCH - 1)
    assert wire.sent == []
    await wire.read(1)
    assert wire.sent == [Credit(7, BATCH)]


async def test_a_slow_reader_gives_what_credit_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_file, "_CREDIT_SECONDS", 0.0)
    wire = Wire()
    wire.feed(INITIAL_CREDIT - 1)
    await wire.read(1)
    assert wire.sent == []  # the worker need not wait for it
    wire.feed(1)
    await wire.read(1)
    assert wire.sent == [Credit(7, 2)]
    await wire.read(1)
    assert wire.sent == [Credit(7, 2)]
    wire.feed(2)
    assert wire.full == 2


async def test_no_credit_is_given_once_the_worker_has_finished() -> None:
    wire = Wire()
    wire.feed(BATCH)
    wire.stream.feed(FINISH)
    await wire.read(BATCH + 1)
    assert wire.sent == []


async def test_it_is_full_when_the_worker_has_no_credit_left() -> None:
    wire = Wire()
    wire.feed(INITIAL_CREDIT - 1)
    assert wire.full == 0
    wire.feed(1)
    assert wire.full == 1
    await wire.read(BATCH)
    wire.feed(BATCH)
    assert wire.full == 2


async def test_a_full_stream_still_takes_its_finish_and_is_read_to_the_end() -> None:
    wire = Wire()
    wire.feed(INITIAL_CREDIT)
    wire.stream.feed(FINISH)
    assert wire.finished == 1
    await wire.stream.watch_stall(0.001)  # nothing to watch any more
    assert len([delta async for delta in wire.stream]) == INITIAL_CREDIT + 1
    assert wire.sent == []


async def test_a_failure_of_the_worker_is_raised_after_what_came_before_it() -> None:
    wire = Wire()
    wire.feed(1)
    wire.stream.feed(FailureDelta(Failure(kind="ModelLoadError", message="broken")))
    wire.feed(1)  # too late
    await wire.read(1)
    for _ in range(2):
        with pytest.raises(ModelLoadError, match="broken"):
            await anext(wire.stream)
    assert wire.finished == 1


async def test_the_first_end_counts() -> None:
    wire = Wire()
    wire.stream.fail(WorkerDiedError("first"))
    wire.stream.fail(WorkerDiedError("second"))
    wire.stream.feed(FINISH)
    with pytest.raises(WorkerDiedError, match="first"):
        await anext(wire.stream)
    assert wire.finished == 1


async def test_a_failure_after_the_finish_is_nobodys_business() -> None:
    wire = Wire()
    wire.stream.feed(FINISH)
    wire.stream.fail(WorkerDiedError("late"))
    assert [delta async for delta in wire.stream] == [FINISH]


async def test_cancel_is_sent_once_and_not_after_the_end() -> None:
    wire = Wire()
    wire.stream.cancel()
    wire.stream.cancel()
    assert wire.sent == [Cancel(7)]
    wire.stream.feed(FinishDelta("cancelled", Usage()))
    assert wire.finished == 1
    finished = Wire()
    finished.stream.feed(FINISH)
    finished.stream.cancel()
    assert finished.sent == []


async def test_a_cancel_with_a_reason_ends_the_stream_with_it_at_once() -> None:
    wire = Wire()
    wire.feed(1)
    wire.stream.cancel(ModelUnloadedError("taken away"))
    wire.stream.feed(FinishDelta("cancelled", Usage()))  # what the worker says to the cancel
    assert wire.sent == [Cancel(7)]
    assert wire.finished == 1
    await wire.read(1)
    with pytest.raises(ModelUnloadedError, match="taken away"):
        await anext(wire.stream)


async def test_a_reason_still_comes_after_a_plain_cancel_but_not_after_the_end() -> None:
    wire = Wire()
    wire.stream.cancel()
    wire.stream.cancel(ModelUnloadedError("taken away"))
    assert wire.sent == [Cancel(7)]
    with pytest.raises(ModelUnloadedError):
        await anext(wire.stream)
    finished = Wire()
    finished.stream.feed(FINISH)
    finished.stream.cancel(ModelUnloadedError("too late"))
    assert [delta async for delta in finished.stream] == [FINISH]


async def test_a_reader_that_takes_nothing_is_cancelled() -> None:
    wire = Wire()
    wire.feed(INITIAL_CREDIT)
    await wire.stream.watch_stall(0.01)
    assert wire.sent == [Cancel(7)]
    assert wire.finished == 1
    await wire.read(INITIAL_CREDIT)
    with pytest.raises(ClientStalledError, match=r"for 0\.01 s"):
        await anext(wire.stream)


async def test_a_reader_that_makes_room_is_left_alone() -> None:
    wire = Wire()
    wire.feed(INITIAL_CREDIT)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wire.stream.watch_stall, 60)
            await anyio.lowlevel.checkpoint()
            await wire.read(BATCH)
    assert wire.sent == [Credit(7, BATCH)]
    assert not wire.stream.finished


async def test_a_slow_reader_is_not_taken_for_a_stalled_one() -> None:
    wire = Wire()
    wire.feed(INITIAL_CREDIT)
    reads = 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wire.stream.watch_stall, 0.25)
        started = anyio.current_time()
        while anyio.current_time() < started + 0.6:  # several times the limit, and no room yet
            await wire.read(1)
            reads += 1
            await anyio.sleep(0.01)
        assert reads < BATCH
        assert not wire.stream.finished
        await until(lambda: wire.stream.finished)  # and now it stalls
    assert wire.sent == [Cancel(7)]


async def test_time_in_which_the_loop_stood_still_is_not_the_readers() -> None:
    wire = Wire()
    wire.feed(INITIAL_CREDIT)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wire.stream.watch_stall, 0.2)
        await anyio.lowlevel.checkpoint()
        time.sleep(0.5)  # noqa: ASYNC251  # an app that blocks it; the reader's turn is later
        await anyio.sleep(0.05)
        assert not wire.stream.finished
        await wire.read(BATCH)
    assert wire.sent == [Credit(7, BATCH)]


async def test_what_is_forwarded_needs_no_reader() -> None:
    wire, got = Wire(), list[Delta]()
    wire.feed(1)
    wire.stream.forward(got.append)
    wire.stream.feed(ContentDelta("later"))
    wire.stream.feed(FINISH)
    assert got == [ContentDelta("0"), ContentDelta("later"), FINISH]
    assert wire.finished == 1
    assert wire.stream.usage == FINISH.usage


async def test_a_failure_is_forwarded_as_the_last_delta_whenever_it_comes() -> None:
    failure = FailureDelta(Failure(kind="WorkerDiedError", message="crashed"))
    for late in (True, False):
        wire, got = Wire(), list[Delta]()
        if late:
            wire.stream.forward(got.append)
        wire.feed(1)
        wire.stream.fail(WorkerDiedError("crashed"))
        wire.feed(1)
        if not late:
            wire.stream.forward(got.append)
        assert got == [ContentDelta("0"), failure]


async def test_who_gets_the_last_delta_finds_the_request_over() -> None:
    for end in (FINISH, FailureDelta(Failure(kind="WorkerDiedError", message="crashed"))):
        wire = Wire()
        wire.stream.forward(lambda delta, stream=wire.stream: stream.cancel())  # type: ignore[misc]
        wire.stream.feed(end)
        assert wire.sent == []  # the worker is not bothered with what it has done


async def test_who_forwards_tells_what_was_read_and_earns_the_credit() -> None:
    wire, got = Wire(), list[Delta]()
    wire.stream.forward(got.append)
    wire.feed(INITIAL_CREDIT)
    assert wire.full == 1
    wire.stream.took(BATCH - 1)
    assert wire.sent == []
    wire.stream.took(BATCH + 1)
    assert wire.sent == [Credit(7, INITIAL_CREDIT)]


async def test_what_is_forwarded_and_never_read_is_cancelled() -> None:
    wire, got = Wire(), list[Delta]()
    wire.stream.forward(got.append)
    wire.feed(INITIAL_CREDIT)
    await wire.stream.watch_stall(0.01)
    assert wire.sent == [Cancel(7)]
    last = got[-1]
    assert isinstance(last, FailureDelta)
    assert last.failure.kind == "ClientStalledError"
