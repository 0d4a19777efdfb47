"""The router of a web process when its host is killed, in whatever phase, and when it closes."""

from __future__ import annotations

import anyio
import pytest

from llm_router_mw.errors import HostDiedError, LLMRouterError, RouterNotRunningError
from llm_router_mw.shared.remote import RemoteRouter
from llm_router_mw.testing.engine import FakeStream
from llm_router_mw.types import ChatTask, ContentDelta, Delta, InstanceState, Wish
from tests.support.looped_hosts import looped_hosts, sharing, state_of
from tests.support.waiting import outcome, until

pytestmark = pytest.mark.asyncio

HELLO = [{"role": "user", "content": "hello"}]
TASK = ChatTask(messages=({"role": "user", "content": "hello"},))
WHOLE = [ContentDelta("echo: "), ContentDelta("hello")]


# The host is killed


class OneByOne(FakeStream):
    """Gives one delta, and then no more until it is told to."""

    async def __anext__(self) -> Delta:
        delta = await super().__anext__()
        self.open = anyio.Event()
        return delta


async def test_without_a_host_nothing_is_loaded_until_the_next_one_speaks() -> None:
    async with sharing() as (router, hosts), router.events() as events:
        await router.load("a")
        while (await anext(events)).state is not InstanceState.LOADED:
            pass
        hosts.failure = RouterNotRunningError("not yet")
        hosts.kill()
        lost = await anext(events)
        assert (lost.kind, lost.models) == ("snapshot", router.models())
        assert state_of(router, "a") is InstanceState.UNLOADED
        hosts.failure = None
        back = await anext(events)
        assert (back.kind, back.models) == ("snapshot", hosts.router.models())


async def test_who_is_queued_when_the_host_dies_is_served_by_the_next() -> None:
    leases: list[object] = []
    async with sharing() as (router, hosts), anyio.create_task_group() as tasks:
        hosts.plugin.engine.slow.add("a")
        tasks.start_soon(outcome, lambda: router.lease("a"), leases)
        await until(lambda: hosts.router.models()[0].waiting)
        hosts.plugin.engine.slow.clear()
        hosts.kill()
        await until(lambda: leases)
        (lease,) = leases
        assert (await lease.chat(HELLO)).text == "echo: hello"  # type: ignore[attr-defined]
        lease.release()  # type: ignore[attr-defined]


async def test_an_answer_that_has_not_begun_is_given_by_the_next_host() -> None:
    answers: list[object] = []
    async with sharing() as (router, hosts), anyio.create_task_group() as tasks:
        hosts.plugin.engine.hold = True
        lease = await router.lease("a")

        async def read() -> list[Delta]:
            return [delta async for delta in lease.stream(TASK, release=True)]

        tasks.start_soon(outcome, read, answers)
        await until(lambda: hosts.plugin.engine.latest("a").streams)
        hosts.plugin.engine.hold = False
        hosts.kill()
        await until(lambda: answers)
        await until(lambda: not hosts.router.models()[0].leases)
    assert isinstance(answers[0], list)
    assert answers[0][:2] == WHOLE
    assert len(hosts.routers) == 2


async def test_an_answer_that_has_begun_ends_with_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with sharing() as (router, hosts), router.acquire("a") as llm:
        with monkeypatch.context() as patch:
            patch.setattr("llm_router_mw.testing.engine.FakeStream", OneByOne)
            stream = llm.stream(TASK)
            assert await anext(stream) == WHOLE[0]
            hosts.kill()
            with pytest.raises(HostDiedError, match="ask again"):
                await anext(stream)
        assert (await llm.chat(HELLO)).text == "echo: hello"  # the lease lives on


async def test_a_verb_that_is_under_way_is_done_by_the_next_host() -> None:
    outcomes: list[object] = []
    async with sharing() as (router, hosts), anyio.create_task_group() as tasks:
        hosts.plugin.engine.slow.add("a")
        tasks.start_soon(outcome, lambda: router.load("a"), outcomes)
        await until(lambda: hosts.plugin.engine.loads)
        hosts.plugin.engine.slow.clear()
        hosts.kill()
        await until(lambda: outcomes)
        assert state_of(router, "a") is InstanceState.LOADED
    assert outcomes == [None]
    assert hosts.plugin.engine.loads == ["a", "a"]


async def test_a_host_that_dies_while_the_router_closes_is_not_replaced() -> None:
    async with looped_hosts() as hosts:
        async with RemoteRouter(meet=hosts.meet) as router:
            await router.lease("a")
            hosts.kill()
        assert len(hosts.routers) == 1


async def test_the_router_can_close_while_there_is_no_host() -> None:
    outcomes: list[object] = []
    async with looped_hosts() as hosts, anyio.create_task_group() as tasks:
        async with RemoteRouter(meet=hosts.meet) as router:
            hosts.failure = OSError("no memory")
            hosts.kill()
            await until(lambda: router._keeper is not None and router._keeper._link is None)
            tasks.start_soon(outcome, lambda: router.load("a"), outcomes)
        await until(lambda: outcomes)
    assert isinstance(outcomes[0], RouterNotRunningError)


# Closing


async def test_closing_ends_what_is_open_and_gives_all_back() -> None:
    outcomes: list[object] = []
    async with looped_hosts() as hosts, anyio.create_task_group() as tasks:
        hosts.plugin.engine.hold = True
        async with RemoteRouter(meet=hosts.meet) as router:
            lease = await router.lease("a")
            tasks.start_soon(outcome, lambda: lease.chat(HELLO), outcomes)
            tasks.start_soon(outcome, lambda: router.lease("a", Wish(owner="x")), outcomes)
            await until(lambda: hosts.plugin.engine.latest("a").streams and outcomes)
            hosts.plugin.engine.slow.add("b")
            tasks.start_soon(outcome, lambda: router.load("b"), outcomes)
            await until(lambda: "b" in hosts.plugin.engine.loads)
        await until(lambda: len(outcomes) == 3)
        assert [type(each) for each in outcomes[1:]] == [RouterNotRunningError] * 2
        await until(lambda: not hosts.router.models()[0].leases)
        assert hosts.plugin.engine.latest("a").streams[0].cancelled
        lease.release()  # nobody is there any more who would have to know
        with pytest.raises(LLMRouterError):
            await router.lease("a")
