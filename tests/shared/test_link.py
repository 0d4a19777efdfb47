"""One connection to a host: each gets the answer to what it asked, and nothing is lost."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from llm_router_mw.errors import InvalidRequestError, ModelNotFoundError
from llm_router_mw.shared.link import Link, News, Request
from llm_router_mw.shared.messages import (
    Abandon,
    Answered,
    Ask,
    Granted,
    Happened,
    Load,
    Queued,
    Refused,
    Views,
)
from llm_router_mw.types import ContentDelta, EmbedTask, FailureDelta, QueuePlace, RouterEvent, Wish
from llm_router_mw.wire import INITIAL_CREDIT, Cancel, Credit, Step, encode
from tests.support.links import TASK, ask, link_answers, linked, load, started
from tests.support.pretended_host import FINISH, INFO, OVERVIEW, pretended_hosts, view
from tests.support.waiting import outcome, until

pytestmark = pytest.mark.asyncio


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


async def test_a_stream_brings_what_the_host_gives_and_is_over() -> None:
    finished: list[bool] = []
    async with linked() as (link, host):
        stream = link.start(7, 1, TASK, release=True, on_finished=lambda: finished.append(True))
        start = await host.start(ContentDelta("x"), FINISH)
        assert (start.ask, start.index, start.task, start.release) == (7, 1, TASK, True)
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
