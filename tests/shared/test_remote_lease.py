"""A lease whose model lives in a host, while hosts come and go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from llm_router_mw.errors import HostDiedError, InvalidRequestError, LeaseExpiredError
from llm_router_mw.protocols import LeaseContract
from llm_router_mw.shared.messages import Ask, Release, Start
from llm_router_mw.shared.remote import RemoteRouter
from llm_router_mw.types import ChatTask, ContentDelta, Delta, EmbedTask, FinishDelta, Usage
from llm_router_mw.wire import Cancel
from tests.support.pretended_host import (
    FINISH,
    INFO,
    PretendedHost,
    PretendedHosts,
    pretended_hosts,
)

pytestmark = pytest.mark.asyncio

TASK = ChatTask(messages=({"role": "user", "content": "hello"},))
HELLO = [{"role": "user", "content": "hello"}]
CANCELLED = FinishDelta("cancelled", Usage())


@asynccontextmanager
async def leased() -> AsyncIterator[tuple[LeaseContract, PretendedHost, PretendedHosts]]:
    """A lease, the host that granted it, and where others are met."""
    async with pretended_hosts() as hosts, RemoteRouter(meet=hosts.meet) as router:
        host = await hosts.next()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.grant)
            lease = await router.lease("a")
        yield lease, host, hosts


@asynccontextmanager
async def meanwhile(call: Callable[[], Awaitable[object]]) -> AsyncIterator[list[object]]:
    """Run *call* beside the body; what it returns is in the list afterwards."""
    results: list[object] = []

    async def run() -> None:
        results.append(await call())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        yield results


async def read(lease: LeaseContract, *, release: bool = False) -> list[Delta]:
    return [delta async for delta in lease.stream(TASK, release=release)]


async def test_it_says_what_was_leased() -> None:
    async with leased() as (lease, _, _):
        assert (lease.model, lease.info) == ("a", INFO)


async def test_it_can_be_used_often_and_is_given_back_once() -> None:
    async with leased() as (lease, host, _):
        for _ in range(2):
            async with meanwhile(lambda: lease.chat(HELLO)) as replies:
                start = await host.start(ContentDelta("hi"), FINISH)
            assert not start.release
            assert [reply.text for reply in replies] == ["hi"]  # type: ignore[attr-defined]
        lease.release()
        lease.release()
        release = await host.hear(Release)
        assert (release.ask, release.index) == (start.ask, 0)
        with pytest.raises(LeaseExpiredError, match="has been released"):
            lease.stream(TASK)
    assert len([each for each in host.all_heard if isinstance(each, Release)]) == 1


async def test_it_can_end_with_its_task() -> None:
    async with leased() as (lease, host, _):
        async with meanwhile(lambda: read(lease, release=True)) as answers:
            assert (await host.start(FINISH)).release
        assert answers == [[FINISH]]
        with pytest.raises(LeaseExpiredError):
            lease.stream(TASK)


async def test_giving_it_back_cancels_its_streams() -> None:
    async with leased() as (lease, host, _):
        async with meanwhile(lambda: read(lease)) as answers:
            start = await host.hear(Start)
            lease.release()
            assert await host.hear(Cancel) == Cancel(start.id)
            await host.hear(Release)
            await host.give(start, CANCELLED)
        assert answers == [[CANCELLED]]


async def test_a_task_that_cannot_be_sent_is_refused_at_once() -> None:
    async with leased() as (lease, _, _):
        with pytest.raises(InvalidRequestError):
            lease.stream(EmbedTask(inputs=(object(),)))  # type: ignore[arg-type]


# The host is killed


async def test_a_request_that_has_got_nothing_yet_is_answered_by_the_next_host() -> None:
    async with leased() as (lease, host, hosts):
        async with meanwhile(lambda: read(lease, release=True)) as answers:
            await host.hear(Start)
            await host.die()
            other = await hosts.next()
            assert (await other.grant()).models == ("a",)
            assert (await other.start(ContentDelta("hi"), FINISH)).release
        assert answers == [[ContentDelta("hi"), FINISH]]
        await other.hear(Release)


async def test_a_request_that_has_got_something_ends_with_its_host() -> None:
    async with leased() as (lease, host, hosts):
        stream = lease.stream(TASK, release=True)
        await host.start(ContentDelta("hi"))
        assert await anext(stream) == ContentDelta("hi")
        await host.die()
        with pytest.raises(HostDiedError, match="ask again") as caught:
            await anext(stream)
        assert (caught.value.status, caught.value.code) == (502, "host_died")
        with pytest.raises(LeaseExpiredError):
            lease.stream(TASK)  # it was to end with that task
        assert (await hosts.next()).all_heard == []


async def test_a_lease_outlives_its_host() -> None:
    async with leased() as (lease, host, hosts):
        stream = lease.stream(TASK)
        await host.start(ContentDelta("hi"))
        await anext(stream)
        await host.die()
        with pytest.raises(HostDiedError):
            await anext(stream)
        async with meanwhile(lambda: lease.chat(HELLO)) as replies:
            other = await hosts.next()
            await other.grant()
            await other.start(ContentDelta("hi again"), FINISH)
        assert [reply.text for reply in replies] == ["hi again"]  # type: ignore[attr-defined]
        lease.release()
        await other.hear(Release)


async def test_streams_of_one_lease_move_to_the_next_host_together() -> None:
    async with leased() as (lease, host, hosts), anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(read, lease)
            await host.hear(Start)
        await host.die()
        other = await hosts.next()
        ask = await other.grant()
        assert [(await other.start(FINISH)).ask for _ in range(2)] == [ask.id] * 2


async def test_giving_it_back_while_the_next_host_is_asked_ends_the_asking() -> None:
    async with leased() as (lease, host, hosts):
        async with meanwhile(lambda: read(lease)) as answers:
            await host.hear(Start)
            await host.die()
            other = await hosts.next()
            await other.hear(Ask)
            lease.release()
        assert answers == [[CANCELLED]]


async def test_one_given_back_without_a_host_is_not_asked_for() -> None:
    async with leased() as (lease, host, hosts):
        await host.die()
        other = await hosts.next()
        lease.release()
        with pytest.raises(LeaseExpiredError):
            lease.stream(TASK)
        await anyio.wait_all_tasks_blocked()
        assert other.all_heard == []
