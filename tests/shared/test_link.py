"""One connection to a host: who asks is answered, and a host that is lost keeps nobody waiting."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from llm_router_mw.errors import (
    HostDiedError,
    InvalidRequestError,
    LLMRouterError,
    ModelNotFoundError,
    RouterNotRunningError,
)
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.link import Link, News, Request
from llm_router_mw.shared.messages import (
    Abandon,
    Answered,
    Ask,
    Granted,
    Happened,
    Load,
    Pong,
    Queued,
    Refused,
    Release,
    Views,
    Welcome,
)
from llm_router_mw.types import (
    AS_USUAL,
    ContentDelta,
    EmbedTask,
    FailureDelta,
    QueuePlace,
    RouterEvent,
    Wish,
)
from llm_router_mw.wire import INITIAL_CREDIT, Cancel, Credit, Step, encode
from tests.support.pretended_host import (
    FINISH,
    INFO,
    OVERVIEW,
    PID,
    PretendedHost,
    pretended_hosts,
    view,
)
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

TASK = EmbedTask(inputs=("hello",))


def load(number: int) -> Load:
    return Load(number, "a", True)


def ask(number: int) -> Ask:
    return Ask(number, ("a",), AS_USUAL)


@asynccontextmanager
async def linked(
    on_news: Callable[[News], None] = lambda news: None, **options: Any
) -> AsyncIterator[tuple[Link, PretendedHost]]:
    """A connection that is being used, and its other end."""
    async with pretended_hosts() as hosts, anyio.create_task_group() as tasks:
        link = Link(await hosts.meet(), on_news, **options)
        tasks.start_soon(link.run)
        yield link, await hosts.next()
        tasks.cancel_scope.cancel()


def started(link: Link) -> RequestStream:
    return link.start(1, 0, TASK, release=False, on_finished=lambda: None)


async def outcome(call: Callable[[], Any], into: list[object]) -> None:
    """Add to *into* what *call* returns, or raises."""
    try:
        into.append(await call())
    except LLMRouterError as error:
        into.append(error)


async def test_each_gets_the_answer_to_what_it_asked() -> None:
    async with linked() as (link, host), anyio.create_task_group() as tasks:
        loaded: list[object] = []
        granted: list[object] = []
        tasks.start_soon(outcome, lambda: link.ask(load), loaded)
        tasks.start_soon(outcome, lambda: link.ask(ask), granted)
        first, second = await host.hear(Load), await host.hear(Ask)
        answer = Granted(second.id, (("a", INFO),))
        await host.say(answer)
        await host.answer(first.id, None)
        await until(lambda: loaded and granted)
        assert granted == [answer]
        assert isinstance(loaded[0], Answered)


async def test_a_refusal_is_raised_as_the_error_that_it_tells_of() -> None:
    async with linked() as (link, host), anyio.create_task_group() as tasks:
        outcomes: list[object] = []
        tasks.start_soon(outcome, lambda: link.ask(load), outcomes)
        refused = ModelNotFoundError("no model 'a'", param="model")
        await host.say(Refused((await host.hear(Load)).id, refused.to_failure()))
        await until(lambda: outcomes)
        (error,) = outcomes
        assert isinstance(error, ModelNotFoundError)
        assert (error.message, error.param) == ("no model 'a'", "model")


async def test_who_waits_is_told_its_place() -> None:
    places: list[QueuePlace] = []
    async with linked() as (link, host), anyio.create_task_group() as tasks:
        tasks.start_soon(link.ask, ask, places.append)
        number = (await host.hear(Ask)).id
        told = [QueuePlace(position=2), QueuePlace(position=1)]
        await host.say(*(Queued(number, place) for place in told), Granted(number, ()))
    assert places == told


async def test_who_cannot_bear_to_hear_its_place_is_told_no_more_and_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = 0

    def fail(place: QueuePlace) -> None:
        nonlocal heard
        heard += 1
        raise ValueError("app code")

    async with linked() as (link, host), anyio.create_task_group() as tasks:
        tasks.start_soon(link.ask, ask, fail)
        number = (await host.hear(Ask)).id
        place = QueuePlace(position=1)
        await host.say(Queued(number, place), Queued(number, place), Granted(number, ()))
    assert heard == 1
    assert "could not be told its place" in caplog.text


async def test_who_did_not_ask_for_its_place_is_not_told() -> None:
    async with linked() as (link, host), anyio.create_task_group() as tasks:
        tasks.start_soon(link.ask, ask)
        number = (await host.hear(Ask)).id
        await host.say(Queued(number, QueuePlace(position=1)), Granted(number, ()))


async def test_who_stops_waiting_is_granted_nothing() -> None:
    async with linked() as (link, host):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.ask, ask)
            number = (await host.hear(Ask)).id
            tasks.cancel_scope.cancel()
        assert await host.hear(Abandon) == Abandon(number)
        # The grant may have been on its way: nobody is there to take it.
        await host.say(Granted(number, (("a", INFO),)), Queued(number, QueuePlace(position=1)))
        await host.say(Refused(number, ModelNotFoundError("gone").to_failure()))
        assert await link_answers(link, host)


async def test_who_stops_waiting_while_the_grant_arrives_is_granted_nothing() -> None:
    async with linked() as (link, host):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def grant_and_leave() -> None:
                    number = (await host.hear(Ask)).id
                    scope.cancel()
                    link._take(Granted(number, (("a", INFO),)))

                tasks.start_soon(grant_and_leave)
                await link.ask(ask)
        assert isinstance(await host.hear(Abandon), Abandon)


async def link_answers(link: Link, host: PretendedHost) -> bool:
    """Return whether the connection still carries a question and its answer."""
    answers: list[object] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outcome, lambda: link.ask(load), answers)
        await host.answer((await host.hear(Load)).id, None)
    return isinstance(answers[0], Answered)


async def test_a_stream_brings_what_the_host_gives_and_is_over() -> None:
    finished: list[bool] = []
    async with linked() as (link, host):
        stream = link.start(7, 1, TASK, release=True, on_finished=lambda: finished.append(True))
        start = await host.start(ContentDelta("x"), FINISH)
        assert (start.ask, start.index, start.task, start.release) == (7, 1, TASK, True)
        assert start.credit == INITIAL_CREDIT
        assert [delta async for delta in stream] == [ContentDelta("x"), FINISH]
        assert (finished, stream.usage) == ([True], FINISH.usage)
        await host.give(start, "too late")
        assert await link_answers(link, host)


async def test_one_frame_feeds_many_streams() -> None:
    async with linked() as (link, host):
        streams = [started(link) for _ in range(3)]
        numbers = [(await host.start()).id for _ in streams]
        deltas = [(number, ContentDelta(str(number))) for number in reversed(numbers)]
        await host.say(Step([*deltas, *((number, FINISH) for number in numbers)]))
        for number, stream in zip(numbers, streams, strict=True):
            assert [delta async for delta in stream] == [ContentDelta(str(number)), FINISH]


async def test_a_stream_that_fails_raises_the_hosts_error() -> None:
    async with linked() as (link, host):
        stream = started(link)
        failure = InvalidRequestError("too long", param="messages").to_failure()
        await host.start(ContentDelta("x"), FailureDelta(failure))
        assert await anext(stream) == ContentDelta("x")
        with pytest.raises(InvalidRequestError, match="too long"):
            await anext(stream)


async def test_the_host_may_be_ahead_of_the_reader_by_its_credit() -> None:
    async with linked() as (link, host):
        stream = started(link)
        start = await host.start(*[ContentDelta("x")] * INITIAL_CREDIT)
        for _ in range(INITIAL_CREDIT // 2):
            await anext(stream)
        assert await host.hear(Credit) == Credit(start.id, INITIAL_CREDIT // 2)


async def test_cancelling_a_stream_tells_the_host_and_does_not_wait() -> None:
    async with linked() as (link, host):
        stream = started(link)
        stream.cancel()
        start = await host.start()
        assert await host.hear(Cancel) == Cancel(start.id)


async def test_a_task_that_cannot_be_sent_is_refused_at_once_and_harms_nobody() -> None:
    async with linked() as (link, host):
        bad = EmbedTask(inputs=(object(),))  # type: ignore[arg-type]
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            link.start(1, 0, bad, release=False, on_finished=lambda: None)
        assert await link_answers(link, host)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda number: Ask(number, ("a",), Wish(priority=0.5)),  # type: ignore[arg-type]
        lambda number: Load(number, "\ud800", True),
    ],
)
async def test_a_request_that_cannot_be_sent_is_refused_at_once_and_harms_nobody(
    request_of: Request,
) -> None:
    async with linked() as (link, host):
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            await link.ask(request_of)
        assert await link_answers(link, host)


async def test_what_the_host_tells_unasked_is_handed_on_in_order() -> None:
    heard: list[News] = []
    news: list[News] = [
        Happened(RouterEvent(kind="status", model="a", at_seconds=1.0)),
        Views((view("a"),), OVERVIEW),
    ]
    async with linked(heard.append) as (_, host):
        await host.say(*news)
        await until(lambda: len(heard) == 2)
    assert heard == news


async def test_what_came_together_with_the_welcome_is_not_lost() -> None:
    heard: list[News] = []
    news = Views((view("a"),), OVERVIEW)
    async with pretended_hosts() as hosts, anyio.create_task_group() as tasks:
        meeting = await hosts.meet()
        assert list(meeting.decoder.feed(encode(news)[:5])) == []
        link = Link(meeting, heard.append)
        tasks.start_soon(link.run)
        await (await hosts.next()).say_bytes(encode(news)[5:])
        await until(lambda: heard)
        tasks.cancel_scope.cancel()


async def test_a_false_alarm_of_the_socket_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pretended_hosts() as hosts, anyio.create_task_group() as tasks:
        link = Link(await hosts.meet(), lambda news: None)
        socket = Startled(link._socket)
        monkeypatch.setattr(link, "_socket", socket)
        tasks.start_soon(link.run)
        assert await link_answers(link, await hosts.next())
        assert socket.alarms == 0
        tasks.cancel_scope.cancel()


class Startled:
    """A socket that seems to have something to read when it has nothing."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.alarms = 3

    def fileno(self) -> int:
        number: int = self._real.fileno()
        return number

    def recv(self, size: int) -> bytes:
        if self.alarms:
            self.alarms -= 1
            raise BlockingIOError
        data: bytes = self._real.recv(size)
        return data


# When the host is lost


async def test_all_that_waits_for_a_host_that_is_lost_fails() -> None:
    outcomes: list[object] = []
    finished: list[bool] = []
    async with linked() as (link, host), anyio.create_task_group() as tasks:
        stream = link.start(1, 0, TASK, release=True, on_finished=lambda: finished.append(True))
        tasks.start_soon(outcome, lambda: link.ask(load), outcomes)
        await host.start(ContentDelta("x"))
        await host.hear(Load)
        await host.die()
        await until(lambda: not link.alive)
        assert await anext(stream) == ContentDelta("x")
        with pytest.raises(HostDiedError, match="ask again"):
            await anext(stream)
        await until(lambda: outcomes)
    assert isinstance(outcomes[0], HostDiedError)
    assert not finished  # the host did not finish it


async def test_each_who_loses_the_host_has_an_error_of_its_own() -> None:
    async with linked() as (link, host):
        streams = [started(link) for _ in range(2)]
        await host.die()
        errors = []
        for stream in streams:
            with pytest.raises(HostDiedError) as caught:
                await anext(stream)
            errors.append(caught.value)
    assert errors[0] is not errors[1]  # one for all would gather the tracebacks of all


async def test_what_the_host_said_before_it_was_lost_counts() -> None:
    async with linked() as (link, host), anyio.create_task_group() as tasks:
        outcomes: list[object] = []
        stream = started(link)
        tasks.start_soon(outcome, lambda: link.ask(load), outcomes)
        await host.start(FINISH)
        await host.answer((await host.hear(Load)).id, None)
        await host.die()
        assert [delta async for delta in stream] == [FINISH]
        await until(lambda: outcomes)
        assert isinstance(outcomes[0], Answered)


async def test_a_lost_host_is_asked_and_told_nothing() -> None:
    async with linked() as (link, host):
        await host.die()
        await until(lambda: not link.alive)
        link.send(Release(1, 0))
        with pytest.raises(HostDiedError):
            await link.ask(load)
        stream = started(link)
        with pytest.raises(HostDiedError):
            await anext(stream)


@pytest.mark.parametrize("bad", [b"\xff" * 64, encode(Granted(1, ()))[:4] + b"\x00" * 64])
async def test_a_host_that_breaks_the_protocol_is_left(
    bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked() as (link, host):
        await host.say_bytes(bad)
        await until(lambda: not link.alive)
        await host.hear_end()
    assert "broke the protocol" in caplog.text


async def test_a_host_that_says_what_nobody_asked_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with linked() as (link, host):
        await host.say(Welcome("1", PID, (), OVERVIEW))
        await until(lambda: not link.alive)
    assert "Welcome is no answer to anything" in caplog.text


async def test_trouble_of_our_own_ends_the_connection_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(news: News) -> None:
        raise ValueError("a defect")

    async with linked(fail) as (link, host):
        await host.say(Views((), OVERVIEW))
        await until(lambda: not link.alive)
    assert "the connection to the shared router failed" in caplog.text


async def test_closing_fails_what_waits_with_the_reason() -> None:
    async with linked() as (link, host), anyio.create_task_group() as tasks:
        outcomes: list[object] = []
        stream = started(link)
        tasks.start_soon(outcome, lambda: link.ask(load), outcomes)
        await host.start()
        await host.hear(Load)
        await link.aclose(RouterNotRunningError("closing"))
        with pytest.raises(RouterNotRunningError, match="closing"):
            await anext(stream)
        await until(lambda: outcomes)
        assert isinstance(outcomes[0], RouterNotRunningError)
        await host.hear_end()


async def test_a_connection_can_be_closed_before_it_is_used() -> None:
    async with pretended_hosts() as hosts:
        link = Link(await hosts.meet(), lambda news: None)
        await link.aclose(RouterNotRunningError("closing"))
        assert not link.alive


# A host that hangs


async def test_a_host_that_says_nothing_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int | None] = []
    async with linked(host_stall_seconds=0.1, ping_seconds=0.01, end_host=ended.append) as (
        link,
        host,
    ):
        await until(lambda: not link.alive)
        assert ended == [PID]
        await host.hear_end()
        assert host.pings
    assert "no sign of life for 0.1 s" in caplog.text


async def test_a_host_that_answers_pings_is_left_alone() -> None:
    ended: list[int | None] = []
    async with linked(host_stall_seconds=0.2, ping_seconds=0.02, end_host=ended.append) as (
        link,
        host,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.hear_end)
            while host.pings < 30:
                await host.say(Pong())
                await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
        assert link.alive
    assert not ended


async def test_a_stall_of_our_own_loop_does_not_condemn_the_host() -> None:
    ended: list[int | None] = []
    async with linked(host_stall_seconds=0.2, ping_seconds=0.05, end_host=ended.append) as (
        link,
        host,
    ):
        for _ in range(3):
            await host.say(Pong())
            time.sleep(0.4)  # noqa: ASYNC251  # twice the limit, in which nobody could be heard
            await anyio.sleep(0.01)
        assert link.alive
    assert not ended
