"""What was granted together is asked for together by the next host, as far as it is still held."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.hold import Hold
from llm_router_mw.shared.keeper import Keeper
from llm_router_mw.shared.link import Link
from llm_router_mw.shared.messages import Abandon, Ask, Granted, Release
from llm_router_mw.types import EmbedTask, Wish
from tests.support.pretended_host import INFO, PretendedHost, PretendedHosts, pretended_hosts
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

TASK = EmbedTask(inputs=("hello",))
WISH = Wish(priority=3, owner="somebody")


@asynccontextmanager
async def holding(*names: str) -> AsyncIterator[tuple[Hold, PretendedHosts, PretendedHost, Ask]]:
    """Leases of *names*, the hosts, the one that granted them, and what it was asked."""
    async with pretended_hosts() as hosts, anyio.create_task_group() as tasks:
        keeper = Keeper(
            hosts.meet,
            lambda meeting: Link(meeting, lambda news: None),
            on_welcome=lambda welcome: None,
            on_lost=lambda: None,
            queue_timeout_seconds=60.0,
        )
        await keeper.open()
        tasks.start_soon(keeper.run)
        hold, host = Hold(keeper, names, WISH), await hosts.next()
        async with anyio.create_task_group() as asking:
            asking.start_soon(hold.take)
            ask = await host.grant()
        yield hold, hosts, host, ask
        await keeper.aclose()
        tasks.cancel_scope.cancel()


def start(hold: Hold, place: int) -> RequestStream | None:
    return hold.start(place, TASK, release=False, on_finished=lambda: None)


async def lost(hold: Hold, host: PretendedHost) -> None:
    """Let *host* die, and return when that is known."""
    await host.die()
    await until(lambda: start(hold, 0) is None)


async def test_leases_are_asked_for_all_at_once() -> None:
    async with holding("a", "b") as (hold, _, _, ask):
        assert (ask.models, ask.wish) == (("a", "b"), WISH)
        assert [hold.model(place) for place in (0, 1)] == ["a", "b"]
        assert hold.info(1) == INFO


async def test_each_is_used_and_given_back_by_itself() -> None:
    async with holding("a", "b") as (hold, _, host, ask):
        assert start(hold, 1) is not None
        started = await host.start()
        assert (started.ask, started.index) == (ask.id, 1)
        hold.release(1)
        hold.release(1)
        hold.release(0)
        assert [await host.hear(Release) for _ in range(2)] == [
            Release(ask.id, 1),
            Release(ask.id, 0),
        ]
        assert start(hold, 0) is None


async def test_the_next_host_is_asked_for_what_is_still_held() -> None:
    async with holding("a", "b", "c") as (hold, hosts, host, _):
        await lost(hold, host)
        hold.release(1)  # nobody is there who would have to know
        other = await hosts.next()
        async with anyio.create_task_group() as asking:
            asking.start_soon(hold.renew)
            ask = await other.grant()
        assert (ask.models, ask.wish) == (("a", "c"), WISH)
        assert start(hold, 2) is not None
        assert (await other.start()).index == 1
        hold.release(2)
        assert await other.hear(Release) == Release(ask.id, 1)


async def test_what_still_holds_is_not_renewed() -> None:
    async with holding("a") as (hold, _, host, _):
        await hold.renew()
        assert len(host.all_heard) == 1


async def test_two_that_need_it_renew_it_once() -> None:
    async with holding("a") as (hold, hosts, host, _):
        await lost(hold, host)
        other = await hosts.next()
        async with anyio.create_task_group() as asking:
            for _ in range(2):
                asking.start_soon(hold.renew)
            await other.grant()
        assert len(other.all_heard) == 1


async def test_if_one_who_renews_leaves_another_goes_on() -> None:
    async with holding("a") as (hold, hosts, host, _):
        await lost(hold, host)
        other = await hosts.next()
        async with anyio.create_task_group() as asking:
            with anyio.CancelScope() as first:
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(hold.renew)
                    await other.hear(Ask)
                    asking.start_soon(hold.renew)
                    first.cancel()
            await other.hear(Abandon)
            await other.grant()
        assert start(hold, 0) is not None


async def test_what_is_given_back_while_it_is_renewed_is_given_back_to_the_next_host() -> None:
    async with holding("a", "b") as (hold, hosts, host, _):
        await lost(hold, host)
        other = await hosts.next()
        async with anyio.create_task_group() as asking:
            asking.start_soon(hold.renew)
            ask = await other.hear(Ask)
            hold.release(0)
            await other.say(Granted(ask.id, (("a", INFO), ("b", INFO))))
        assert await other.hear(Release) == Release(ask.id, 0)
        assert start(hold, 1) is not None
