"""Answers of any engine on their way to a web process: credit, ends and failures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import pytest

from llm_router_mw.errors import LLMRouterError, WorkerDiedError
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.relay import Relay, relay_of
from llm_router_mw.testing.engine import FakeStream
from llm_router_mw.types import ContentDelta, Delta, FailureDelta, FinishDelta, Usage
from llm_router_mw.wire import INITIAL_CREDIT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

FINISH = FinishDelta("stop", Usage())
TEXT = ContentDelta("x")


def over() -> None:
    """Take no note of the end."""


def stream_of(*deltas: Delta) -> FakeStream:
    """Return an answer that has come as a whole."""
    stream = FakeStream(deltas, over)
    stream.give()
    return stream


@asynccontextmanager
async def relaying(stream: FakeStream) -> AsyncIterator[tuple[Relay, list[Delta]]]:
    """Relay *stream* into a list."""
    got: list[Delta] = []
    async with anyio.create_task_group() as tasks:
        relay = relay_of(stream, tasks)
        relay.forward(got.append)
        yield relay, got
        tasks.cancel_scope.cancel()


def failures(got: Sequence[Delta]) -> list[tuple[str, str]]:
    return [
        (delta.failure.kind, delta.failure.message)
        for delta in got
        if isinstance(delta, FailureDelta)
    ]


async def test_an_answer_of_a_worker_needs_no_task() -> None:
    stream = RequestStream(1, lambda message: None, over, lambda stream: None)
    async with anyio.create_task_group() as tasks:
        assert relay_of(stream, tasks) is stream


async def test_an_answer_of_another_engine_is_read_to_its_end() -> None:
    async with relaying(stream_of(TEXT, FINISH)) as (_, got):
        await until(lambda: FINISH in got)
        assert got == [TEXT, FINISH]


async def test_it_is_read_as_far_as_there_is_credit() -> None:
    async with relaying(stream_of(*[TEXT] * INITIAL_CREDIT, TEXT, TEXT, FINISH)) as (relay, got):
        await until(lambda: len(got) == INITIAL_CREDIT)
        await anyio.lowlevel.checkpoint()
        assert len(got) == INITIAL_CREDIT
        relay.took(1)
        await until(lambda: len(got) == INITIAL_CREDIT + 1)
        relay.took(2)
        await until(lambda: FINISH in got)


async def test_its_end_needs_no_credit() -> None:
    got: list[Delta] = []
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:  # ends when all has been read
            whole = stream_of(*[TEXT] * (INITIAL_CREDIT - 1), FINISH)
            relay_of(whole, tasks).forward(got.append)
    assert got[-1] == FINISH


async def test_one_that_is_cancelled_ends_without_credit() -> None:
    async with relaying(stream_of(*[TEXT] * INITIAL_CREDIT, TEXT, FINISH)) as (relay, got):
        await until(lambda: len(got) == INITIAL_CREDIT)
        relay.cancel()
        await until(lambda: got[-1] == FinishDelta("cancelled", Usage()))


class Thorough(FakeStream):
    """Says all that it has to say also when it was cancelled."""

    def cancel(self, error: LLMRouterError | None = None) -> None:
        self.deltas.append(FINISH)


async def test_what_one_had_to_say_is_read_first() -> None:
    stream = Thorough([TEXT] * (INITIAL_CREDIT + 10), over)
    stream.give()
    async with relaying(stream) as (relay, got):
        await until(lambda: len(got) == INITIAL_CREDIT)
        relay.cancel()
        await until(lambda: got[-1] == FINISH)


async def test_a_failure_is_the_last_delta() -> None:
    stream = FakeStream([TEXT], over)
    async with relaying(stream) as (_, got):
        stream.fail(WorkerDiedError("crashed"))
        await until(lambda: got)
        assert failures(got) == [("WorkerDiedError", "crashed")]


async def test_an_answer_without_an_end_is_a_failure() -> None:
    async with relaying(stream_of(TEXT)) as (_, got):
        await until(lambda: len(got) == 2)
        assert failures(got) == [
            ("LLMRouterError", "the engine ended the request without a result")
        ]


async def test_an_engine_that_breaks_is_a_failure_and_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = FakeStream([], over)
    stream.error = ZeroDivisionError("secret")  # type: ignore[assignment]
    stream.give()
    async with relaying(stream) as (_, got):
        await until(lambda: got)
        [(kind, message)] = failures(got)
    assert kind == "LLMRouterError"
    assert "secret" not in message
    assert "ZeroDivisionError: secret" in caplog.text


async def test_what_no_web_process_could_read_is_a_failure_of_this_answer_alone() -> None:
    nonsense = ContentDelta(None)  # type: ignore[arg-type]
    async with relaying(stream_of(TEXT, nonsense, FINISH)) as (_, got):
        await until(lambda: len(got) == 2)
        assert [kind for kind, _ in failures(got)] == ["LLMRouterError"]
