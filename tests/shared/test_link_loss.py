"""A host that is lost keeps nobody waiting, and one that hangs is ended."""

from __future__ import annotations

import time

import anyio
import pytest

from llm_router_mw.errors import HostDiedError, RouterNotRunningError
from llm_router_mw.shared.link import Link, News
from llm_router_mw.shared.messages import Answered, Granted, Load, Pong, Release, Views, Welcome
from llm_router_mw.types import ContentDelta
from llm_router_mw.wire import encode
from tests.support.links import TASK, linked, load, started
from tests.support.pretended_host import FINISH, OVERVIEW, PID, pretended_hosts
from tests.support.waiting import outcome, until

pytestmark = pytest.mark.asyncio


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


async def test_a_connection_can_be_closed_before_it_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pretended_hosts() as hosts:
        link = Link(await hosts.meet(), lambda news: None)
        await link.aclose(RouterNotRunningError("closing"))
        assert not link.alive
        await link.run()  # its task has its first turn only now
    assert not caplog.messages


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
