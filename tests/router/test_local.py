"""What a router promises to app code. The engine is a fake: nothing here starts a process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.errors import (
    ConfigError,
    InvalidRequestError,
    LeaseExpiredError,
    LLMRouterError,
    ModelFileError,
    ModelLoadError,
    ModelNotFoundError,
    ModelNotLoadedError,
    ModelUnloadedError,
    QueueTimeoutError,
    RouterNotRunningError,
    WorkerDiedError,
)
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import Candidate, EvictionPolicy, LeaseContract, Observer, Shortfall
from llm_router_mw.router import Lease, Router
from llm_router_mw.router.conductor import Conductor
from llm_router_mw.testing import FakePlugin, make_router
from llm_router_mw.types import (
    ChatTask,
    Delta,
    FinishDelta,
    InstanceState,
    Model,
    RouterEvent,
    Wish,
)
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

HELLO = [{"role": "user", "content": "hello"}]
TASK = ChatTask(messages=({"role": "user", "content": "hello"},))


@pytest.fixture
def plugin(tmp_path: Path) -> FakePlugin:
    return FakePlugin(tmp_path)


def fake_router(*plugins: object, **options: Any) -> Router:
    return Router(plugins=plugins, engine="fake", **options)


def state(router: Router, name: str) -> InstanceState:
    (view,) = (view for view in router.models() if view.id == name)
    return view.state


def waiting(router: Router, name: str) -> int:
    (view,) = (view for view in router.models() if view.id == name)
    return view.waiting


class Chronicle:
    """An observer that remembers."""

    name = "chronicle"

    def __init__(self) -> None:
        self.events: list[RouterEvent] = []

    @hookimpl
    def llm_router_register_observers(self, config: RouterConfig) -> list[Observer]:
        return [self]

    def on_event(self, event: RouterEvent) -> None:
        self.events.append(event)

    def of(self, model: str) -> list[tuple[str, str | None]]:
        return [(event.kind, event.state) for event in self.events if event.model == model]


# Taking models


async def test_a_model_is_loaded_on_demand_and_answers(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router, router.acquire("a") as llm:
        reply = await llm.chat(HELLO)
        assert (reply.text, reply.finish_reason) == ("echo: hello", "stop")
        assert reply.usage.total_tokens == 3
        assert (await llm.complete("once")).text == "echo: once"
        assert (await llm.embed(["x", "y"])).vectors == ((1.0, 0.0), (1.0, 0.0))
        assert (llm.model, llm.info.n_ctx) == ("a", 128)
    assert plugin.engine.loads == ["a"]


async def test_a_model_stays_loaded_for_the_next_request(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        for _ in range(2):
            async with router.acquire("a"):
                pass
        assert state(router, "a") is InstanceState.LOADED
    assert plugin.engine.loads == ["a"]


async def test_several_models_are_taken_all_at_once_and_in_their_order(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        async with router.acquire("b", "a") as leases:
            assert [lease.model for lease in leases] == ["b", "a"]
            assert [view.leases for view in router.models()] == [1, 1, 0]
        assert [view.leases for view in router.models()] == [0, 0, 0]


async def test_two_tasks_that_want_each_others_model_do_not_deadlock(plugin: FakePlugin) -> None:
    async with fake_router(plugin, models_max=2) as router:

        async def use(*names: str) -> None:
            for _ in range(5):
                async with router.acquire(*names):
                    await anyio.lowlevel.checkpoint()

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use, "a", "b")
                tasks.start_soon(use, "b", "a")


async def test_more_models_than_may_be_loaded_are_refused(plugin: FakePlugin) -> None:
    async with fake_router(plugin, models_max=1) as router:
        with pytest.raises(InvalidRequestError, match="models_max"):
            async with router.acquire("a", "b"):
                pass  # pragma: no cover


async def test_one_slot_goes_from_model_to_model(plugin: FakePlugin) -> None:
    async with fake_router(plugin, models_max=1) as router:
        for name in ("a", "b", "a"):
            async with router.acquire(name) as llm:
                assert (await llm.chat(HELLO)).text == "echo: hello"
                loaded = [v.id for v in router.models() if v.state is InstanceState.LOADED]
                assert loaded == [name]
    assert plugin.engine.loads == ["a", "b", "a"]


async def test_requests_for_a_cold_model_share_one_load(plugin: FakePlugin) -> None:
    plugin.engine.slow.add("a")
    async with fake_router(plugin) as router:
        answers: list[str] = []

        async def ask() -> None:
            async with router.acquire("a") as llm:
                answers.append((await llm.chat(HELLO)).text)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(ask)
            await until(lambda: waiting(router, "a") == 4 and plugin.engine.loads)
            plugin.engine.latest("a").ready.set()
    assert answers == ["echo: hello"] * 4
    assert plugin.engine.loads == ["a"]


async def test_two_names_over_one_file_share_the_instance(tmp_path: Path) -> None:
    plugin = FakePlugin(tmp_path, ("a",), {"second": "a"})
    async with fake_router(plugin) as router, router.acquire("a", "second") as leases:
        assert [lease.model for lease in leases] == ["a", "second"]
        assert [view.leases for view in router.models()] == [2, 2]
    assert plugin.engine.loads == ["a"]


async def test_a_lease_can_be_held_without_a_context_manager(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        lease = await router.lease("a")
        assert router.models()[0].leases == 1
        lease.release()
        lease.release()
        assert router.models()[0].leases == 0
        with pytest.raises(LeaseExpiredError):
            lease.stream(TASK)


async def test_a_lease_ends_with_the_task_that_was_to_release_it(plugin: FakePlugin) -> None:
    plugin.engine.hold = True
    async with fake_router(plugin) as router:
        lease = await router.lease("a")
        stream = lease.stream(TASK, release=True)
        assert router.models()[0].leases == 1
        plugin.engine.instances[0].streams[0].give()
        assert len([delta async for delta in stream]) == 3
        assert router.models()[0].leases == 0


async def test_a_task_that_ends_before_it_is_handed_out_releases_too(
    plugin: FakePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_router(plugin) as router:
        lease = await router.lease("a")
        engine = plugin.engine.instances[0]
        submit = engine.submit

        def submit_and_fail(*arguments: Any) -> Any:
            stream = submit(*arguments)
            stream.fail(WorkerDiedError("gone already"))
            return stream

        monkeypatch.setattr(engine, "submit", submit_and_fail)
        stream = lease.stream(TASK, release=True)
        assert router.models()[0].leases == 0
        with pytest.raises(WorkerDiedError, match="gone already"):
            await anext(stream)


async def test_releasing_cancels_what_runs_under_the_lease(plugin: FakePlugin) -> None:
    plugin.engine.hold = True
    async with fake_router(plugin) as router:
        async with router.acquire("a") as llm:
            stream = llm.stream(TASK)
        deltas: list[Delta] = [delta async for delta in stream]
        assert isinstance(deltas[-1], FinishDelta)
        assert deltas[-1].reason == "cancelled"


# What goes wrong


async def test_a_router_that_was_not_entered_says_so(plugin: FakePlugin) -> None:
    router = fake_router(plugin)
    assert not router.running
    with pytest.raises(RouterNotRunningError, match="async with"):
        router.models()
    with pytest.raises(RouterNotRunningError):
        await router.lease("a")


async def test_config_and_options_exclude_each_other(plugin: FakePlugin) -> None:
    with pytest.raises(ConfigError, match="not both"):
        Router(RouterConfig(), models_max=1)


async def test_a_router_is_of_one_process(plugin: FakePlugin) -> None:
    with pytest.raises(ConfigError, match=r"mode is 'shared', and a Router .* use RemoteRouter"):
        Router(mode="shared", plugins=[plugin])


async def test_an_unknown_model_is_not_found(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        for call in (router.lease("z"), router.load("z"), router.unload("z")):
            with pytest.raises(ModelNotFoundError):
                await call


async def test_a_broken_file_is_refused_before_a_worker_starts(
    plugin: FakePlugin, tmp_path: Path
) -> None:
    (tmp_path / "a.gguf").write_bytes(b"no model")
    async with fake_router(plugin) as router:
        with pytest.raises(ModelFileError):
            await router.lease("a")
    assert plugin.engine.instances == []


async def test_without_autoload_a_cold_model_is_refused_and_a_loaded_one_served(
    plugin: FakePlugin,
) -> None:
    async with fake_router(plugin, models_autoload=False) as router:
        with pytest.raises(ModelNotLoadedError):
            await router.lease("a")
        await router.load("a")
        (await router.lease("a")).release()
        (await router.lease("b", Wish(autoload=True))).release()


async def test_a_failed_load_is_told_to_all_who_wait_and_shown(plugin: FakePlugin) -> None:
    plugin.engine.broken["a"] = ModelLoadError("no memory")
    async with fake_router(plugin) as router:
        with pytest.raises(ModelLoadError, match="no memory"):
            await router.lease("a")
        await until(lambda: state(router, "a") is InstanceState.FAILED)
        assert router.models()[0].error == "no memory"
        (await router.lease("b")).release()
        plugin.engine.broken.clear()
        await router.load("a")  # by hand: there is no cool-down
        assert state(router, "a") is InstanceState.LOADED
        assert router.models()[0].error is None


@pytest.mark.parametrize("error", [ModelLoadError("no process"), ValueError("a bug")])
async def test_an_engine_that_makes_no_worker_fails_the_load_only(
    plugin: FakePlugin, error: Exception
) -> None:
    plugin.engine.broken_create = error
    async with fake_router(plugin) as router:
        with pytest.raises(ModelLoadError, match=str(error)):
            await router.lease("a")
        plugin.engine.broken_create = None
        (await router.lease("b")).release()


async def test_an_engine_that_fails_to_start_fails_the_router_as_it_is(plugin: FakePlugin) -> None:
    plugin.engine.broken_running = ConfigError("no such device")
    router = fake_router(plugin)
    with pytest.raises(ConfigError, match="no such device"):
        await router.__aenter__()
    assert not router.running
    plugin.engine.broken_running = None
    async with router:
        (await router.lease("a")).release()


async def test_a_crash_ends_the_leases_and_the_next_request_reloads(plugin: FakePlugin) -> None:
    plugin.engine.hold = True
    chronicle = Chronicle()
    async with fake_router(plugin, chronicle) as router:
        lease = await router.lease("a")
        stream = lease.stream(TASK)
        plugin.engine.latest("a").die()
        with pytest.raises(WorkerDiedError):
            await anext(stream)
        await until(lambda: state(router, "a") is InstanceState.UNLOADED)
        with pytest.raises(WorkerDiedError, match="SIGSEGV"):
            lease.stream(TASK)
        assert ("worker_died", InstanceState.UNLOADED) in chronicle.of("a")
        (await router.lease("a")).release()
    assert plugin.engine.loads == ["a", "a"]


async def test_an_engine_that_loses_track_of_its_worker_says_why(plugin: FakePlugin) -> None:
    chronicle = Chronicle()
    async with fake_router(plugin, chronicle) as router:
        (await router.lease("a")).release()
        plugin.engine.broken_wait = ValueError("lost it")
        plugin.engine.latest("a").die()
        await until(lambda: state(router, "a") is InstanceState.UNLOADED)
        assert "lost it" in chronicle.events[-1].reason


async def test_an_engine_that_cannot_end_a_worker_does_not_end_the_router(
    plugin: FakePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    plugin.engine.broken_end = ValueError("no such worker")
    async with fake_router(plugin) as router:
        (await router.lease("a")).release()
        await router.unload("a", force=True)
        (await router.lease("b")).release()
        await router.unload("b")
        assert router.overview().plugin_failures["engine 'fake'"] >= 2
    assert "engine 'fake' failed: no such worker" in caplog.text


async def test_errors_of_the_body_come_out_as_they_are(plugin: FakePlugin) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with fake_router(plugin) as router, router.acquire("a"):
            raise KeyError("mine")


# Cancelling


async def test_a_request_that_is_cancelled_in_the_queue_leaves_it(plugin: FakePlugin) -> None:
    plugin.engine.slow.add("a")
    async with fake_router(plugin) as router:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(router.lease, "a")
            await until(lambda: plugin.engine.loads)
            tasks.cancel_scope.cancel()
        assert waiting(router, "a") == 0
        await until(lambda: state(router, "a") is InstanceState.UNLOADED)  # the load is aborted


async def test_a_load_is_aborted_also_while_its_worker_is_being_made(plugin: FakePlugin) -> None:
    made = plugin.engine.slow_create = anyio.Event()
    async with fake_router(plugin) as router:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(router.lease, "a")
            await until(lambda: made.statistics().tasks_waiting)
            tasks.cancel_scope.cancel()
        await router.unload("a", force=True, wait=False)  # there is nothing yet to kill
        made.set()
        await until(lambda: state(router, "a") is InstanceState.UNLOADED)
    assert plugin.engine.loads == []
    assert plugin.engine.instances[0].gone.is_set()


async def test_a_request_that_is_cancelled_in_the_moment_of_the_grant_gives_its_lease_back(
    plugin: FakePlugin,
) -> None:
    async with fake_router(plugin) as router:
        await router.load("a")
        with anyio.CancelScope() as scope:
            scope.cancel()  # a loaded model is granted at once: only then comes the first wait
            await router.lease("a")
        assert scope.cancelled_caught
        instance = router.models()[0]
        assert (instance.leases, instance.waiting) == (0, 0)


async def test_cancelling_one_waiter_does_not_hurt_the_others(plugin: FakePlugin) -> None:
    plugin.engine.slow.add("a")
    async with fake_router(plugin) as router:
        first = asyncio.create_task(router.lease("a"))
        second = asyncio.create_task(router.lease("a"))
        await until(lambda: waiting(router, "a") == 2)
        first.cancel()
        await until(lambda: waiting(router, "a") == 1 and plugin.engine.loads)
        plugin.engine.latest("a").ready.set()
        (await second).release()


async def test_the_router_closes_in_order_when_its_task_is_cancelled(plugin: FakePlugin) -> None:
    entered = anyio.Event()

    async def serve() -> None:
        async with fake_router(plugin) as router:
            await router.load("a")
            entered.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await entered.wait()
        tasks.cancel_scope.cancel()
    assert plugin.engine.latest("a").gone.is_set()

    entered = anyio.Event()
    task = asyncio.create_task(serve())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert plugin.engine.latest("a").gone.is_set()


async def test_a_second_cancelling_does_not_cut_the_closing_short(plugin: FakePlugin) -> None:
    plugin.engine.stubborn["a"] = anyio.Event()
    entered = anyio.Event()

    async def serve() -> None:
        async with fake_router(plugin) as router:
            await router.load("a")
            entered.set()
            await anyio.sleep_forever()

    task = asyncio.create_task(serve())
    await entered.wait()
    task.cancel()
    await until(lambda: plugin.engine.latest("a").stops)
    task.cancel()
    await anyio.lowlevel.checkpoint()
    assert not task.done()
    plugin.engine.stubborn["a"].set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert plugin.engine.latest("a").gone.is_set()


# Closing


async def test_closing_refuses_waiters_takes_leases_and_stops_workers(plugin: FakePlugin) -> None:
    plugin.engine.slow.add("b")
    plugin.engine.hold = True
    refused: list[LLMRouterError] = []

    async def wait_for(router: Router) -> None:
        try:
            await router.lease("b")
        except LLMRouterError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        async with fake_router(plugin) as router:
            lease = await router.lease("a")
            stream = lease.stream(TASK)
            tasks.start_soon(wait_for, router)
            await until(lambda: waiting(router, "b") == 1)
        assert all(instance.gone.is_set() for instance in plugin.engine.instances)
    assert [type(error) for error in refused] == [RouterNotRunningError]
    assert isinstance(lease, Lease)
    assert not lease.held
    with pytest.raises(RouterNotRunningError, match="closing"):
        lease.stream(TASK)
    with pytest.raises(RouterNotRunningError, match="closing"):
        await anext(stream)
    assert not router.running


async def test_nothing_is_started_any_more_while_the_router_closes(plugin: FakePlugin) -> None:
    plugin.engine.stubborn["a"] = anyio.Event()
    router = fake_router(plugin, models_max=1)

    async def ask_while_it_closes(conductor: Conductor, model: Model) -> None:
        await until(lambda: not router.running)
        with pytest.raises(RouterNotRunningError):
            await conductor.request([model], Wish(), hold=True)
        with pytest.raises(RuntimeError, match="not closed yet"):
            await router.__aenter__()
        plugin.engine.stubborn["a"].set()

    async with anyio.create_task_group() as tasks, router:
        running = router._running
        assert running is not None
        await router.load("a")
        await router.load("b", wait=False)  # evicts a, and waits for its room
        tasks.start_soon(ask_while_it_closes, running.conductor, running.catalog.resolve("c"))
    assert plugin.engine.loads == ["a"]


async def test_a_worker_that_is_still_being_made_does_not_outlive_the_router(
    plugin: FakePlugin,
) -> None:
    plugin.engine.slow_create = anyio.Event()
    async with fake_router(plugin) as router:
        await router.load("a", wait=False)
        await until(lambda: state(router, "a") is InstanceState.LOADING)
    plugin.engine.slow_create.set()
    assert plugin.engine.instances == []


async def test_a_load_that_ends_while_the_router_closes_is_granted_to_nobody(
    plugin: FakePlugin,
) -> None:
    plugin.engine.slow.add("a")

    async def wait_in_vain(router: Router) -> None:
        with pytest.raises(RouterNotRunningError):
            await router.lease("a")

    async with anyio.create_task_group() as tasks, fake_router(plugin) as router:
        tasks.start_soon(wait_in_vain, router)
        await until(lambda: plugin.engine.loads)
        worker = plugin.engine.latest("a")
        stop = worker.stop

        async def stop_late(timeout_seconds: float) -> None:
            worker.ready.set()
            await until(lambda: loading.info is not None)
            await stop(timeout_seconds)

        worker.stop = stop_late  # type: ignore[method-assign]
        running = router._running
        assert running is not None
        (instance,) = running.scheduler.instances()
        present = running.conductor.workers.get(instance.key)
        assert present is not None
        loading = present
    assert instance.uses == 0
    assert not instance.leases


async def test_a_router_is_entered_once_at_a_time_and_again_after_its_end(
    plugin: FakePlugin,
) -> None:
    router = fake_router(plugin)
    async with router:
        with pytest.raises(RuntimeError, match="already running"):
            await router.__aenter__()
        assert router.running
        (await router.lease("a")).release()
    async with router:
        assert state(router, "a") is InstanceState.UNLOADED
        (await router.lease("a")).release()


# Loading and unloading by hand


async def test_load_waits_or_does_not(plugin: FakePlugin) -> None:
    plugin.engine.slow.add("a")
    async with fake_router(plugin) as router:
        await router.load("a", wait=False)
        assert state(router, "a") is InstanceState.LOADING
        await until(lambda: router.models()[0].progress == 0.5)
        plugin.engine.latest("a").ready.set()
        await router.load("a")
        view = router.models()[0]
        assert (view.state, view.progress, view.leases) == (InstanceState.LOADED, None, 0)
        assert view.info is not None


async def test_how_a_load_went_that_nobody_waited_for_is_seen(plugin: FakePlugin) -> None:
    plugin.engine.broken["a"] = ModelLoadError("no memory")
    async with fake_router(plugin) as router, router.events() as events:
        await router.load("a", wait=False)
        async for event in events:
            if event.kind == "load_failed":
                break
        assert event.reason == "no memory"


async def test_unload_returns_when_the_worker_is_gone(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        await router.load("a")
        assert await router.unload("a")
        assert plugin.engine.latest("a").gone.is_set()
        assert state(router, "a") is InstanceState.UNLOADED
        assert await router.unload("a")  # once more does no harm


async def test_a_busy_model_drains_before_it_is_unloaded(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        lease = await router.lease("a")
        assert not await router.unload("a", wait=False)
        assert state(router, "a") is InstanceState.DRAINING
        assert (await lease.chat(HELLO)).text == "echo: hello"
        lease.release()
        assert await router.unload("a")
        assert state(router, "a") is InstanceState.UNLOADED


async def test_unload_by_force_cuts_requests_off_and_says_why(plugin: FakePlugin) -> None:
    plugin.engine.hold = True
    async with fake_router(plugin) as router:
        lease = await router.lease("a")
        chatting = asyncio.create_task(lease.chat(HELLO))
        await until(lambda: plugin.engine.latest("a").streams)
        assert await router.unload("a", force=True)
        assert plugin.engine.latest("a").killed
        with pytest.raises(ModelUnloadedError, match="'a' was unloaded"):
            await chatting
        with pytest.raises(ModelUnloadedError):
            lease.stream(TASK)


async def test_a_lease_that_is_held_too_long_ends_its_streams_and_says_why(
    plugin: FakePlugin,
) -> None:
    plugin.engine.hold = True
    async with fake_router(plugin, max_lease_seconds=0.05) as router:
        lease = await router.lease("a")
        with pytest.raises(LeaseExpiredError, match=r"held for more than 0\.05 s"):
            await lease.chat(HELLO)
        assert plugin.engine.latest("a").streams[0].cancelled


async def test_an_answer_that_is_cut_off_by_a_release_is_not_passed_off_as_a_whole_one(
    plugin: FakePlugin,
) -> None:
    plugin.engine.hold = True
    async with fake_router(plugin) as router:
        lease = await router.lease("a")
        chatting = asyncio.create_task(lease.chat(HELLO))
        await until(lambda: plugin.engine.latest("a").streams)
        lease.release()
        with pytest.raises(LeaseExpiredError, match="before the answer was complete"):
            await chatting


async def test_who_waits_for_sleep_is_told_that_the_router_closes(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        await router.lease("a")
        sleeping = asyncio.create_task(router.sleep("a"))
        await until(lambda: state(router, "a") is InstanceState.DRAINING)
    with anyio.fail_after(5), pytest.raises(RouterNotRunningError):
        await sleeping


async def test_unload_does_not_wait_for_a_worker_that_came_after(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        lease = await router.lease("a")
        unloading = asyncio.create_task(router.unload("a"))
        await until(lambda: state(router, "a") is InstanceState.DRAINING)
        next_lease = asyncio.create_task(router.lease("a"))
        await until(lambda: waiting(router, "a") == 1)
        lease.release()
        with anyio.fail_after(5):
            assert await unloading
            held = await next_lease
        assert state(router, "a") is InstanceState.LOADED
        held.release()
    assert plugin.engine.loads == ["a", "a"]


async def test_unloading_one_of_two_names_leaves_the_instance_to_the_other(
    tmp_path: Path,
) -> None:
    plugin = FakePlugin(tmp_path, ("a",), {"second": "a"})
    async with fake_router(plugin) as router:
        await router.load("a")
        await router.load("second")
        with anyio.fail_after(5):
            assert await router.unload("a")
        assert state(router, "second") is InstanceState.LOADED
        assert await router.unload("second")
        assert state(router, "second") is InstanceState.UNLOADED


# Watching


async def test_events_begin_with_a_snapshot_and_tell_a_whole_life(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router, router.events() as events:
        first = await anext(events)
        assert (first.kind, [view.id for view in first.models]) == ("snapshot", ["a", "b", "c"])
        await router.load("a")
        await router.unload("a")
        seen = [await anext(events) for _ in range(6)]
    assert [(event.kind, event.state) for event in seen] == [
        ("queued", InstanceState.UNLOADED),
        ("status", InstanceState.LOADING),
        ("progress", None),
        ("status", InstanceState.LOADED),
        ("status", InstanceState.STOPPING),
        ("status", InstanceState.UNLOADED),
    ]
    assert {event.model for event in seen} == {"a"}
    assert seen[2].data == {"value": 0.5}


async def test_all_names_of_an_instance_are_told(tmp_path: Path) -> None:
    plugin = FakePlugin(tmp_path, ("a",), {"second": "a"})
    chronicle = Chronicle()
    async with fake_router(plugin, chronicle) as router:
        await router.load("a")
        await router.unload("a")
    assert chronicle.of("a") == chronicle.of("second")
    assert chronicle.of("a")[-1] == ("status", InstanceState.UNLOADED)


async def test_events_end_with_the_router(plugin: FakePlugin) -> None:
    async with fake_router(plugin) as router:
        subscription = router.events()
        events = await subscription.__aenter__()
    assert [event.kind async for event in events] == ["snapshot"]
    await subscription.__aexit__(None, None, None)


async def test_a_raising_observer_hurts_nobody_and_is_logged_once(
    plugin: FakePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    class Grumbler(Chronicle):
        name = "grumbler"

        def on_event(self, event: RouterEvent) -> None:
            raise ValueError("not again")

    chronicle = Chronicle()
    with caplog.at_level(logging.ERROR):
        async with fake_router(plugin, Grumbler(), chronicle) as router:
            (await router.lease("a")).release()
    assert ("status", InstanceState.LOADED) in chronicle.of("a")
    assert caplog.text.count("observer 'grumbler' failed") == 1


async def test_trouble_is_logged_as_a_warning_and_an_eviction_with_its_reason(
    plugin: FakePlugin, caplog: pytest.LogCaptureFixture
) -> None:
    plugin.engine.broken["b"] = ModelLoadError("no memory")
    with caplog.at_level(logging.INFO, "llm_router_mw.router"):
        async with fake_router(plugin, models_max=1) as router:
            (await router.lease("a")).release()
            with pytest.raises(ModelLoadError):
                await router.lease("b")
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["b: stopping: no memory"]
    assert "a: stopping: evicted to make room for 'b'" in caplog.text


async def test_a_lease_that_is_held_too_long_is_taken_back(plugin: FakePlugin) -> None:
    config = parse_config(engine="fake", max_lease_seconds=0.05)
    async with Router(config, plugins=[plugin]) as router:
        lease = await router.lease("a")
        assert isinstance(lease, Lease)
        await until(lambda: not lease.held)
        with pytest.raises(LeaseExpiredError, match="held for more than"):
            lease.stream(TASK)


async def test_a_custom_policy_chooses_the_victim(plugin: FakePlugin) -> None:
    class NewestFirst:
        name = "newest"

        def rank(
            self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
        ) -> Sequence[Candidate]:
            return sorted(candidates, key=lambda candidate: -candidate.last_used_seconds)

        @hookimpl
        def llm_router_register_eviction_policies(
            self, config: RouterConfig
        ) -> list[EvictionPolicy]:
            return [self]

    options: dict[str, Any] = {"models_max": 2, "eviction_policy": "newest"}
    async with fake_router(plugin, NewestFirst(), **options) as router:
        leases: list[LeaseContract] = []
        for name in ("a", "b", "c"):
            leases.append(await router.lease(name))
            leases[-1].release()
        assert state(router, "a") is InstanceState.LOADED
        assert state(router, "b") is InstanceState.UNLOADED


async def test_who_asks_waits_no_longer_than_he_said_for_what_is_not_known_yet(
    tmp_path: Path,
) -> None:
    never = threading.Event()

    class Slow:
        name = "slow"

        def estimate(self, *about: Any) -> None:
            never.wait(5)

        @hookimpl
        def llm_router_register_estimators(self) -> list[Any]:
            return [self]

    async with make_router(tmp_path, Slow()) as router:
        try:
            with pytest.raises(QueueTimeoutError, match=r"within 0\.05 s"):
                await router.lease("a", Wish(timeout_seconds=0.05))
        finally:
            never.set()
