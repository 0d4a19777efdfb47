"""The router of a web process: it promises what a router in its own process does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import (
    ConfigError,
    ModelNotFoundError,
    ModelNotLoadedError,
    QueueTimeoutError,
    RouterNotRunningError,
)
from llm_router_mw.router import RouterThread, SyncRouter
from llm_router_mw.router.bridge import BridgedLease
from llm_router_mw.shared.remote import RemoteRouter
from llm_router_mw.types import (
    ChatTask,
    InstanceState,
    Purged,
    QueuePlace,
    RouterEvent,
    Wish,
)
from tests.support.looped_hosts import looped_hosts, sharing, state_of
from tests.support.waiting import outcome, until

T = TypeVar("T")
HELLO = [{"role": "user", "content": "hello"}]
TASK = ChatTask(messages=({"role": "user", "content": "hello"},))


async def elsewhere(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* returns on an event loop of its own, in another thread."""

    async def bounded() -> T:
        with anyio.fail_after(20):
            return await call()

    return await anyio.to_thread.run_sync(anyio.run, bounded)


# Starting and ending


@pytest.mark.asyncio
async def test_it_knows_the_models_as_soon_as_it_runs() -> None:
    async with sharing(models_max=2) as (router, hosts):
        assert router.running
        assert [view.id for view in router.models()] == ["a", "b", "c"]
        assert router.models() == hosts.router.models()
        assert router.overview().models_max == 2


@pytest.mark.asyncio
async def test_it_must_run_before_it_is_used() -> None:
    router = RemoteRouter()
    assert not router.running
    for call in (router.models, router.overview):
        with pytest.raises(RouterNotRunningError, match="enter it"):
            call()
    with pytest.raises(RouterNotRunningError):
        await router.load("a")
    with pytest.raises(RouterNotRunningError):
        await router.lease("a")


@pytest.mark.asyncio
async def test_a_host_that_cannot_start_is_seen_at_the_start() -> None:
    async with looped_hosts() as hosts:
        hosts.failure = ConfigError("models_dir is wrong")
        router = RemoteRouter(meet=hosts.meet)
        with pytest.raises(ConfigError, match="models_dir"):
            async with router:
                pass
        assert not router.running
        hosts.failure = None
        async with router:
            assert router.models()


@pytest.mark.asyncio
async def test_it_may_run_again_but_not_twice_at_once() -> None:
    async with looped_hosts() as hosts:
        router = RemoteRouter(meet=hosts.meet)
        for _ in range(2):
            async with router:
                await router.load("a")
                with pytest.raises(RuntimeError, match="already running"):
                    await router.__aenter__()
            assert not router.running
        assert hosts.plugin.engine.loads == ["a"]  # it stayed with the host


@pytest.mark.asyncio
async def test_options_are_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="models_maxx"):
        RemoteRouter(models_maxx=1)
    with pytest.raises(ConfigError, match="not both"):
        RemoteRouter(RouterConfig(), models_max=1)
    with pytest.raises(ConfigError, match="dotted name"):
        RemoteRouter(plugins=[object()])


def test_routes_that_plugins_add_are_served_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_routes.py").write_text(
        "from llm_router_mw.hookspecs import hookimpl\n"
        "class Group:\n"
        "    name, access, routes = 'mine', 'inference', ()\n"
        "@hookimpl\n"
        "def llm_router_register_routes(config):\n"
        "    return [Group()]\n"
        "@hookimpl\n"
        "def llm_router_register_engines(config):\n"
        "    raise RuntimeError('engines are the business of the host')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    router = RemoteRouter(plugins=["my_routes"])
    assert list(router.route_groups) == ["mine"]
    assert router.route_groups is router.route_groups


# Leases


@pytest.mark.asyncio
async def test_a_lease_serves() -> None:
    async with sharing() as (router, hosts):
        async with router.acquire("a", owner="me") as llm:
            assert (llm.model, llm.info.n_ctx) == ("a", 128)
            assert (await llm.chat(HELLO)).text == "echo: hello"
            assert (await llm.complete("once")).text == "echo: once"
            assert len((await llm.embed(["x", "y"])).vectors) == 2
            assert hosts.router.models()[0].leases == 1
            await until(lambda: router.models()[0].leases == 1)
        await until(lambda: not hosts.router.models()[0].leases)
        await until(lambda: not router.models()[0].leases)


@pytest.mark.asyncio
async def test_several_are_leased_at_once() -> None:
    async with sharing() as (router, hosts):
        async with router.acquire("a", "c") as leases:
            assert [lease.model for lease in leases] == ["a", "c"]
            assert [(await lease.chat(HELLO)).text for lease in leases] == ["echo: hello"] * 2
        await until(lambda: not any(view.leases for view in hosts.router.models()))


@pytest.mark.asyncio
async def test_processes_share_what_is_loaded() -> None:
    async with sharing() as (first, hosts), RemoteRouter(meet=hosts.meet) as second:
        async with first.acquire("a") as ours, second.acquire("a") as theirs:
            await ours.chat(HELLO)
            await theirs.chat(HELLO)
            assert hosts.router.models()[0].leases == 2
        assert hosts.plugin.engine.loads == ["a"]


@pytest.mark.asyncio
async def test_errors_are_those_of_the_router() -> None:
    async with sharing() as (router, _):
        with pytest.raises(ModelNotFoundError):
            await router.lease("z")
        with pytest.raises(ModelNotLoadedError):
            await router.lease("a", Wish(autoload=False))
        with pytest.raises(ModelNotFoundError):
            await router.tasks("z")


@pytest.mark.asyncio
async def test_who_waits_is_told_and_has_patience_as_it_says() -> None:
    places: list[QueuePlace] = []
    async with sharing(models_max=1) as (router, _):
        await router.load("b")  # so that it is known what it needs
        async with router.acquire("a"):
            with pytest.raises(QueueTimeoutError, match=r"no room for 'b' within 0\.3 s"):
                await router.lease("b", Wish(timeout_seconds=0.3), on_queued=places.append)
    assert places[0].position == 1


@pytest.mark.asyncio
async def test_who_leaves_the_queue_is_not_waited_for() -> None:
    async with sharing(models_max=1) as (router, hosts), router.acquire("a"):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(router.lease, "b")
            await until(lambda: hosts.router.overview().waiting == 1)
            tasks.cancel_scope.cancel()
        await until(lambda: hosts.router.overview().waiting == 0)


@pytest.mark.asyncio
async def test_an_answer_ends_when_its_lease_is_given_back() -> None:
    async with sharing() as (router, hosts):
        hosts.plugin.engine.hold = True
        lease = await router.lease("a")
        stream = lease.stream(TASK)
        await until(lambda: hosts.plugin.engine.latest("a").streams)
        lease.release()
        deltas = [delta async for delta in stream]
        assert [getattr(delta, "reason", None) for delta in deltas] == ["cancelled"]


# Management and monitoring


@pytest.mark.asyncio
async def test_what_a_verb_has_done_is_seen_at_once() -> None:
    async with sharing() as (router, _):
        await router.load("a")
        assert state_of(router, "a") is InstanceState.LOADED
        assert await router.sleep("a", level="context")
        assert state_of(router, "a") is InstanceState.SLEEPING
        await router.wake("a")
        assert state_of(router, "a") is InstanceState.LOADED
        assert await router.unload("a", force=True)
        assert state_of(router, "a") is InstanceState.UNLOADED


@pytest.mark.asyncio
async def test_a_verb_need_not_be_waited_for() -> None:
    async with sharing() as (router, hosts):
        hosts.plugin.engine.slow.add("a")
        await router.load("a", wait=False)
        await until(lambda: hosts.plugin.engine.loads)
        await until(lambda: state_of(router, "a") is InstanceState.LOADING)
        hosts.plugin.engine.latest("a").ready.set()
        await until(lambda: state_of(router, "a") is InstanceState.LOADED)
        async with router.acquire("a"):
            assert not await router.unload("a", wait=False)
            assert state_of(router, "a") is InstanceState.DRAINING


@pytest.mark.asyncio
async def test_tasks_and_saved_conversations_are_asked_of_the_host() -> None:
    async with sharing() as (router, hosts):
        hosts.plugin.engine.hold = True
        async with router.acquire("a") as llm:
            stream = llm.stream(TASK)
            await until(lambda: hosts.plugin.engine.latest("a").streams)
            assert await router.tasks("a") == (TASK,)
            stream.cancel()
        assert await router.cached() == ()
        assert await router.purge_cache() == Purged(snapshots=0, size_bytes=0)
        with pytest.raises(ModelNotFoundError):
            await router.purge_cache("z")


@pytest.mark.asyncio
async def test_events_begin_with_a_snapshot_and_tell_what_happens() -> None:
    async with sharing() as (router, _), router.events() as events:
        first = await anext(events)
        assert (first.kind, first.models) == ("snapshot", router.models())
        await router.load("a")
        states = []
        while "loaded" not in states:
            event = await anext(events)
            states += [event.state] if event.kind == "status" else []
        assert states == ["loading", "loaded"]


@pytest.mark.asyncio
async def test_events_end_with_the_router() -> None:
    heard: list[RouterEvent] = []

    async def listen(router: RemoteRouter) -> None:
        async with router.events() as events:
            heard.extend([event async for event in events])

    async with anyio.create_task_group() as tasks, sharing() as (router, _):
        tasks.start_soon(listen, router)
        await until(lambda: router._hub._subscriptions)
    assert [event.kind for event in heard] == ["snapshot"]


# From another loop


@pytest.mark.asyncio
async def test_all_verbs_work_from_another_loop() -> None:
    async with sharing() as (router, hosts):

        async def visit() -> list[str]:
            async with router.events() as events:
                kinds: list[str] = [(await anext(events)).kind]
                await router.load("a")
                assert state_of(router, "a") is InstanceState.LOADED
                kinds += [(await anext(events)).kind for _ in range(4)]
            async with router.acquire("a", "b") as leases:
                assert all(isinstance(lease, BridgedLease) for lease in leases)
                assert [(await lease.chat(HELLO)).text for lease in leases] == ["echo: hello"] * 2
            assert (await router.tasks("a"), await router.cached()) == ((), ())
            assert await router.sleep("a")
            await router.wake("a")
            assert await router.unload("a")
            with pytest.raises(ModelNotFoundError):
                await router.lease("z")
            return kinds

        assert await elsewhere(visit) == ["snapshot", "queued", "status", "progress", "status"]
        await until(lambda: not any(view.leases for view in hosts.router.models()))


@pytest.mark.asyncio
async def test_a_lease_that_nobody_on_the_other_loop_takes_is_given_back() -> None:
    async with sharing(models_max=1) as (router, hosts):
        held = await router.lease("a")

        async def visit() -> None:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(router.lease, "b")
                    await until(lambda: router.overview().waiting == 1)
                    scope.cancel()

        await elsewhere(visit)
        held.release()
        await until(lambda: hosts.router.overview().waiting == 0)
        await until(lambda: not any(view.leases for view in hosts.router.models()))


def test_synchronous_code_has_it_on_a_thread() -> None:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(looped_hosts()) as hosts,
    ):
        portal.call(hosts.start)
        thread = RouterThread(RemoteRouter(meet=lambda plan: hosts.connect()))
        router = SyncRouter(thread)
        with router.acquire("a") as llm:
            assert llm.chat(HELLO).text == "echo: hello"
        assert [view.id for view in router.models()] == ["a", "b", "c"]
        assert router.unload("a")
        thread.stop()


@pytest.mark.asyncio
async def test_calls_from_another_loop_end_with_the_router() -> None:
    outcomes: list[object] = []
    async with looped_hosts() as hosts, anyio.create_task_group() as tasks:
        hosts.plugin.engine.slow.add("a")
        async with RemoteRouter(meet=hosts.meet) as router:
            tasks.start_soon(outcome, lambda: elsewhere(lambda: router.load("a")), outcomes)
            await until(lambda: hosts.plugin.engine.loads)
        await until(lambda: outcomes)
    assert isinstance(outcomes[0], RouterNotRunningError)
