"""The router from a second event loop in another thread: same verbs, nothing lost or leaked."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import BlockingPortal

from llm_router_mw.errors import ModelNotFoundError, ModelUnloadedError, RouterNotRunningError
from llm_router_mw.protocols import LeaseContract
from llm_router_mw.router import Router
from llm_router_mw.router.bridge import Bridge, BridgedLease
from llm_router_mw.testing import FakePlugin
from llm_router_mw.types import ChatTask, ContentDelta, Delta, InstanceState
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

T = TypeVar("T")
HELLO = [{"role": "user", "content": "hello"}]
TASK = ChatTask(messages=({"role": "user", "content": "hello"},))


@pytest.fixture
def plugin(tmp_path: Path) -> FakePlugin:
    return FakePlugin(tmp_path)


def fake_router(plugin: FakePlugin) -> Router:
    return Router(plugins=[plugin], engine="fake")


async def elsewhere(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* returns on an event loop of its own, in another thread."""

    async def bounded() -> T:
        with anyio.fail_after(20):
            return await call()

    return await anyio.to_thread.run_sync(anyio.run, bounded)


@asynccontextmanager
async def bridge() -> AsyncIterator[tuple[Bridge, BlockingPortal]]:
    """A bridge to the present loop, and the portal below it."""
    async with BlockingPortal() as portal:
        yield Bridge(portal), portal


async def test_all_verbs_work_from_another_loop(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:

        async def visit() -> None:
            await router.load("a")
            async with router.acquire("a") as llm:
                assert isinstance(llm, BridgedLease)
                assert (llm.model, llm.info.n_ctx) == ("a", 128)
                assert (await llm.chat(HELLO)).text == "echo: hello"
                assert (await llm.complete("once")).text == "echo: once"
                assert len((await llm.embed("x")).vectors) == 1
                assert router.models()[0].leases == 1
            async with router.acquire("a", "b") as leases:
                assert [lease.model for lease in leases] == ["a", "b"]
            assert await router.unload("a")

        await elsewhere(visit)
        await until(lambda: not any(view.leases for view in router.models()))


async def test_errors_cross_as_they_are(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:

        async def visit() -> None:
            with pytest.raises(ModelNotFoundError):
                await router.lease("z")

        await elsewhere(visit)


async def test_a_stream_is_read_from_another_loop_and_releases_its_lease(
    plugin: FakePlugin,
) -> None:
    async with fake_router(plugin) as router:

        async def visit() -> list[Delta]:
            lease = await router.lease("a")
            return [delta async for delta in lease.stream(TASK, release=True)]

        assert (await elsewhere(visit))[:2] == [ContentDelta("echo: "), ContentDelta("hello")]
        await until(lambda: router.models()[0].leases == 0)


async def test_a_stream_can_be_cancelled_from_another_loop(plugin: FakePlugin) -> None:
    plugin.engine.hold = True
    async with fake_router(plugin) as router:

        async def visit() -> None:
            lease = await router.lease("a")
            stream = lease.stream(TASK, release=True)
            with anyio.move_on_after(0.05):
                await anext(stream)
            stream.cancel()

        await elsewhere(visit)
        await until(lambda: router.models()[0].leases == 0)
        assert plugin.engine.latest("a").streams[0].cancelled


@pytest.mark.parametrize("release", [True, False])
async def test_a_stream_that_is_cancelled_before_it_is_read_never_starts(
    plugin: FakePlugin, release: bool
) -> None:
    async with fake_router(plugin) as router:

        async def visit() -> LeaseContract:
            lease = await router.lease("a")
            stream = lease.stream(TASK, release=release)
            stream.cancel()
            assert [delta async for delta in stream] == []
            return lease

        await elsewhere(visit)
        assert router.models()[0].leases == (0 if release else 1)
        assert plugin.engine.latest("a").streams == []


async def test_the_reason_of_a_cancelling_crosses_to_the_reader(plugin: FakePlugin) -> None:
    plugin.engine.hold = True
    async with fake_router(plugin) as router:

        async def visit() -> None:
            lease = await router.lease("a")
            unread, running = lease.stream(TASK), lease.stream(TASK)
            with anyio.move_on_after(0.05):
                await anext(running)
            for stream in (unread, running):
                stream.cancel(ModelUnloadedError("taken away"))
                with pytest.raises(ModelUnloadedError, match="taken away"):
                    await anext(stream)
            lease.release()

        await elsewhere(visit)
        assert len(plugin.engine.latest("a").streams) == 1


async def test_events_are_heard_on_another_loop_until_one_leaves(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:

        async def visit() -> list[str]:
            async with router.events() as events:
                kinds = [(await anext(events)).kind]
                await router.load("a")
                return [*kinds, *[(await anext(events)).kind for _ in range(4)]]

        assert await elsewhere(visit) == ["snapshot", "queued", "status", "progress", "status"]
        await until(lambda: not router._hub._subscriptions)


async def test_events_end_on_another_loop_when_the_router_closes(plugin: FakePlugin) -> None:
    listening = threading.Event()
    router = fake_router(plugin)
    heard: list[str] = []

    async def visit() -> None:
        async with router.events() as events:
            async for event in events:
                heard.append(event.kind)
                listening.set()

    async with anyio.create_task_group() as tasks, router:
        tasks.start_soon(elsewhere, visit)
        await until(listening.is_set)
    assert heard == ["snapshot"]


async def test_a_request_that_is_cancelled_while_it_waits_leaves_the_queue(
    plugin: FakePlugin,
) -> None:
    plugin.engine.slow.add("a")
    async with fake_router(plugin) as router:

        async def visit() -> None:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(router.lease, "a")
                    await until(lambda: router.models()[0].waiting == 1)
                    scope.cancel()

        await elsewhere(visit)
        await until(lambda: router.models()[0].state is InstanceState.UNLOADED)
        assert (router.models()[0].waiting, router.models()[0].leases) == (0, 0)


async def test_a_lease_that_is_granted_too_late_is_given_back(plugin: FakePlugin) -> None:
    plugin.engine.slow.add("a")
    stands_still = threading.Event()
    async with fake_router(plugin) as router:

        async def visit() -> None:
            asked = asyncio.create_task(router.lease("a"))
            await until(lambda: router.models()[0].waiting == 1)
            stands_still.set()
            while not router.models()[0].leases:
                time.sleep(0.001)  # noqa: ASYNC251
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(elsewhere, visit)
            await until(lambda: stands_still.is_set() and plugin.engine.loads)
            plugin.engine.latest("a").ready.set()
        await until(lambda: router.models()[0].leases == 0)
        (instance,) = router._running.scheduler.instances()  # type: ignore[union-attr]
        assert instance.uses == 1


async def test_what_came_before_the_cancelling_is_given_back() -> None:
    undone: list[int] = []
    called, go_on, done = threading.Event(), threading.Event(), threading.Event()
    async with bridge() as (over, _):

        async def call() -> int:
            called.set()
            await anyio.to_thread.run_sync(go_on.wait, 10)
            done.set()
            return 5

        async def visit() -> None:
            asked = asyncio.create_task(over.run(call, undone.append))
            await until(called.is_set)
            go_on.set()
            done.wait(10)  # this loop stands still, and doesn't see that the result is there
            time.sleep(0.01)  # noqa: ASYNC251
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

        await elsewhere(visit)
        await until(lambda: undone == [5])


async def test_what_comes_after_the_cancelling_is_given_back() -> None:
    undone: list[int] = []
    go_on = anyio.Event()
    calls = threading.Event()
    async with bridge() as (over, _):

        async def call() -> int:
            calls.set()
            with anyio.CancelScope(shield=True):
                await go_on.wait()
            return 5

        async def visit(undo: Callable[[int], None] | None) -> None:
            calls.clear()
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(over.run, call, undo)
                    await until(calls.is_set)
                    scope.cancel()

        await elsewhere(lambda: visit(undone.append))
        await elsewhere(lambda: visit(None))  # what needs no undoing is dropped
        assert undone == []
        go_on.set()
        await until(lambda: undone == [5])


async def test_a_closed_router_says_so_and_has_released_all_by_itself(
    plugin: FakePlugin,
) -> None:
    router = fake_router(plugin)
    held, closed = threading.Event(), threading.Event()

    async def visit() -> None:
        async with router.acquire("a") as llm:
            stream = llm.stream(TASK)
            held.set()
            await anyio.to_thread.run_sync(closed.wait)
            with pytest.raises(RouterNotRunningError, match="closed"):
                await anext(stream)
            stream.cancel()  # harmless, as is the release that follows

    async with anyio.create_task_group() as tasks:
        async with router:
            tasks.start_soon(elsewhere, visit)
            await until(held.is_set)
        closed.set()


async def test_a_call_that_is_under_way_when_the_router_closes_ends_with_an_error() -> None:
    waiting = threading.Event()

    async def wait() -> None:
        waiting.set()
        await anyio.sleep_forever()

    async def visit(over: Bridge) -> None:
        with pytest.raises(RouterNotRunningError, match="closed meanwhile"):
            await over.run(wait)

    async with anyio.create_task_group() as tasks, bridge() as (over, portal):
        tasks.start_soon(elsewhere, lambda: visit(over))
        await until(waiting.is_set)
        await portal.stop(cancel_remaining=True)


async def test_a_bridged_lease_may_be_released_at_home(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        lease = await elsewhere(lambda: router.lease("a"))
        assert router.models()[0].leases == 1
        lease.release()
        assert router.models()[0].leases == 0


async def test_a_callers_loop_stays_free_while_the_owners_is_blocked() -> None:
    gaps: list[float] = []
    arrived, blocked = threading.Event(), threading.Event()
    async with bridge() as (over, _):

        async def call() -> int:
            return 5

        async def tick() -> None:
            while True:
                before = time.monotonic()
                await anyio.sleep(0.01)
                gaps.append(time.monotonic() - before)

        async def visit() -> None:
            arrived.set()
            await until(blocked.is_set)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tick)
                over.run_soon(lambda: None)
                assert await over.run(call) == 5
                tasks.cancel_scope.cancel()

        async def block() -> None:
            await until(arrived.is_set)
            blocked.set()
            time.sleep(0.6)  # noqa: ASYNC251

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(elsewhere, visit)
            tasks.start_soon(block)
    assert max(gaps) < 0.4


async def test_a_call_that_is_cancelled_before_the_owner_took_it_is_never_made() -> None:
    made: list[int] = []
    arrived, blocked, left = threading.Event(), threading.Event(), threading.Event()
    async with bridge() as (over, _):

        async def call() -> None:
            made.append(5)

        async def visit() -> None:
            arrived.set()
            await until(blocked.is_set)
            with anyio.move_on_after(0.1):
                await over.run(call)
            left.set()

        async def block() -> None:
            await until(arrived.is_set)
            blocked.set()
            left.wait(10)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(elsewhere, visit)
            tasks.start_soon(block)
        await elsewhere(lambda: over.run(anyio.lowlevel.checkpoint))  # a later one has its turn
    assert made == []


@pytest.mark.parametrize("backends", [("asyncio", "asyncio"), ("asyncio", "trio"), ("trio",) * 2])
async def test_loops_that_call_each_other_at_once_do_not_wait_for_ever(
    backends: tuple[str, str],
) -> None:
    together = threading.Barrier(2, timeout=10)
    bridges: dict[int, Bridge] = {}
    got: list[int] = []

    async def live(mine: int) -> None:
        async with BlockingPortal() as portal:
            bridges[mine] = Bridge(portal)
            together.wait()
            other = 1 - mine

            async def call() -> int:
                return other

            got.append(await bridges[other].run(call))
            # It stays until the other has been answered too.
            await anyio.to_thread.run_sync(together.wait)

    async def run(mine: int) -> None:
        await anyio.to_thread.run_sync(lambda: anyio.run(live, mine, backend=backends[mine]))

    async with anyio.create_task_group() as tasks:
        for mine in (0, 1):
            tasks.start_soon(run, mine)
    assert sorted(got) == [0, 1]


async def test_a_call_that_nobody_waits_for_may_start_tasks() -> None:
    async with bridge() as (made, _), anyio.create_task_group() as tasks:
        begun = anyio.Event()

        async def work() -> None:
            begun.set()

        def call() -> None:
            tasks.start_soon(work)

        await anyio.to_thread.run_sync(made.run_soon, call)
        with anyio.fail_after(10):
            await begun.wait()


@pytest.mark.parametrize("is_installed", [True, False])
async def test_a_loop_is_known_where_no_task_runs(
    is_installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As anyio asks for it, in an app with sniffio and in one without."""
    library: ContextVar[str] = ContextVar("library", default="nobody knows")

    class Sniffio:
        current_async_library_cvar = library

        @staticmethod
        def current_async_library() -> str:
            return "asyncio"

    monkeypatch.setitem(sys.modules, "sniffio", Sniffio if is_installed else None)
    seen: list[str] = []
    async with bridge() as (made, _):
        await anyio.to_thread.run_sync(made.run_soon, lambda: seen.append(library.get()))
        await until(lambda: seen)
    assert seen == ["asyncio" if is_installed else "nobody knows"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_a_call_that_nobody_waits_for_may_fail(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("a bug in a callback")

    async def live() -> None:
        async with bridge() as (over, _):

            def visit() -> None:
                over.run_soon(fail)

            await anyio.to_thread.run_sync(visit)
            await until(lambda: "a bug in a callback" in caplog.text)

    await anyio.to_thread.run_sync(lambda: anyio.run(live, backend=backend))


async def test_a_call_sees_what_its_callers_context_holds() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nothing")
    async with bridge() as (over, _):

        async def call() -> str:
            return variable.get()

        async def visit() -> str:
            variable.set("the caller's")
            return await over.run(call)

        assert await elsewhere(visit) == "the caller's"
