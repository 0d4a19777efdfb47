"""The I/O shell around the scheduler: its timer, and workers that do not obey at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from llm_router_mw.default_plugins.eviction import LeastRecentlyUsed
from llm_router_mw.errors import ModelLoadError, QueueTimeoutError
from llm_router_mw.faults import Faults
from llm_router_mw.router.conductor import Conductor
from llm_router_mw.router.hub import EventHub
from llm_router_mw.router.sleep_handlers import SleepHandlers
from llm_router_mw.router.workers import Worker, Workers
from llm_router_mw.scheduler import Limits, Scheduler, actions, events
from llm_router_mw.testing import FakePlugin, FakeSource
from llm_router_mw.types import (
    InstanceKey,
    InstanceState,
    Model,
    ModelView,
    Price,
    QueuePlace,
    Wish,
)
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


class Stage:
    """A conductor with a fake engine, one slot, and a clock that the test turns."""

    def __init__(self, folder: Path, tasks: anyio.abc.TaskGroup) -> None:
        self.now = 0.0
        self.engine = FakePlugin(folder).engine
        self.a, self.b, _ = FakeSource(folder, ("a", "b", "c"), {}).models()
        self.scheduler = Scheduler(
            LeastRecentlyUsed(),
            Limits(
                models_max=1,
                max_queue=0,
                max_wait_seconds=10.0,
                queue_timeout_seconds=100.0,
                max_lease_seconds=1000.0,
            ),
        )
        models = {model.id: model for model in (self.a, self.b)}

        async def appraise(key: InstanceKey) -> tuple[Price, ...]:
            return ()

        async def learn(key: InstanceKey, worker: Worker) -> None:
            pass

        async def identify(key: InstanceKey, price: Price | None) -> str:
            return ""

        def make_workers(conductor: Conductor) -> Workers:
            return Workers(
                self.engine,
                tasks,
                conductor.dispatch,
                conductor.progressed,
                clock=lambda: self.now,
                chat_formats={},
                devices=lambda: (),
                gate=None,
                on_loaded=learn,
                handlers=no_sleep_handlers(tasks),
                identify=identify,
                faults=Faults(),
                stop_timeout_seconds=1.0,
            )

        self.conductor = Conductor(
            self.scheduler,
            EventHub(()),
            tasks,
            clock=lambda: self.now,
            names={model.instance_key: [model.id] for model in models.values()},
            view=lambda name: ModelView(model=models[name]),
            appraise=appraise,
            make_workers=make_workers,
        )

    def state(self, model: Model) -> InstanceState:
        instance = self.scheduler.instance(model.instance_key)
        return instance.state if instance is not None else InstanceState.UNLOADED

    def waiting(self, model: Model) -> int:
        return self.scheduler.waiting(model.instance_key)


def no_sleep_handlers(tasks: anyio.abc.TaskGroup) -> SleepHandlers:
    return SleepHandlers(
        (),
        tasks,
        Faults(),
        lambda key, reason: None,
        models=lambda key: (),
        hurried=lambda: False,
        timeout_seconds=1.0,
        closing_seconds=1.0,
    )


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    async with anyio.create_task_group() as tasks:
        made = Stage(folder, tasks)
        yield made
        await made.conductor.close()
        tasks.cancel_scope.cancel()


async def test_the_timer_rings_when_the_scheduler_asked_for_it(tmp_path: Path) -> None:
    async with stage(tmp_path) as theatre, anyio.create_task_group() as tasks:
        (lease,) = await theatre.conductor.request([theatre.a], Wish(), hold=True)
        theatre.now = 999.99  # the lease ends at 1000
        tasks.start_soon(theatre.conductor.run_timer)
        await anyio.lowlevel.checkpoint()
        assert lease.held
        theatre.now = 1000.0
        await until(lambda: not lease.held)
        tasks.cancel_scope.cancel()


async def test_a_timer_that_rings_too_early_is_set_again(tmp_path: Path) -> None:
    async with stage(tmp_path) as theatre, anyio.create_task_group() as tasks:
        (lease,) = await theatre.conductor.request([theatre.a], Wish(), hold=True)
        theatre.now = 999.99
        tasks.start_soon(theatre.conductor.run_timer)
        ticks = 0
        decide = theatre.scheduler.decide

        def counted(event: events.Event, now: float) -> list[actions.Action]:
            nonlocal ticks
            ticks += isinstance(event, events.Tick)
            return decide(event, now)

        theatre.scheduler.decide = counted  # type: ignore[method-assign]
        await until(lambda: ticks >= 2)  # the clock stands still
        assert lease.held
        theatre.now = 1000.0
        await until(lambda: not lease.held)
        tasks.cancel_scope.cancel()


async def test_a_request_that_waits_too_long_is_refused_by_the_clock(tmp_path: Path) -> None:
    async with stage(tmp_path) as theatre:
        (lease,) = await theatre.conductor.request([theatre.a], Wish(), hold=True)
        refusals: list[QueueTimeoutError] = []

        async def ask() -> None:
            try:
                await theatre.conductor.request([theatre.b], Wish(), hold=True)
            except QueueTimeoutError as error:
                refusals.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: theatre.waiting(theatre.b) == 1)
            theatre.now = 100.0
            tasks.start_soon(theatre.conductor.run_timer)  # its time has come long ago
            await until(lambda: refusals)
            tasks.cancel_scope.cancel()
        assert lease.held
        lease.release()


async def test_who_fails_to_hear_of_his_place_is_served_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def listen(place: QueuePlace) -> None:
        raise RuntimeError("deaf")

    async with stage(tmp_path) as theatre:
        conductor = theatre.conductor
        (first,) = await conductor.request([theatre.a], Wish(), hold=True)

        async def ask() -> None:
            (lease,) = await conductor.request([theatre.b], Wish(), hold=True, on_queued=listen)
            lease.release()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: theatre.waiting(theatre.b) == 1)
            first.release()
        assert theatre.state(theatre.b) is InstanceState.LOADED
    assert len([each for each in caplog.records if each.exc_info]) == 1


async def test_the_log_says_why_a_load_that_nobody_waits_for_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(tmp_path) as theatre:
        failure = ModelLoadError("it is too large").to_failure()
        theatre.conductor.request_later([theatre.a])
        event = events.PriceFailed(instance=theatre.a.instance_key, failure=failure)
        theatre.conductor.dispatch(event)
        assert [each.message for each in caplog.records] == [
            "nothing is loaded as was asked for: it is too large"
        ]


async def test_the_timer_is_put_forward_but_not_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as theatre:
        conductor = theatre.conductor
        moved = conductor._timer_moved
        conductor._set_timer(100.0)
        assert moved.is_set()
        conductor._timer_moved = anyio.Event()
        for later in (200.0, None):
            conductor._set_timer(later)
            assert not conductor._timer_moved.is_set()
        conductor._set_timer(50.0)
        assert conductor._timer_moved.is_set()


async def test_a_stubborn_victim_keeps_its_slot_until_it_is_gone(tmp_path: Path) -> None:
    async with stage(tmp_path) as theatre:
        conductor, engine = theatre.conductor, theatre.engine
        await conductor.request([theatre.a], Wish(), hold=False)
        engine.stubborn["a"] = anyio.Event()
        conductor.request_later([theatre.b])
        await until(lambda: engine.latest("a").stops == 1)
        assert theatre.state(theatre.a) is InstanceState.STOPPING
        assert engine.loads == ["a"]
        engine.stubborn["a"].set()
        await until(lambda: theatre.state(theatre.b) is InstanceState.LOADED)
        assert engine.loads == ["a", "b"]


async def test_closing_waits_for_a_stubborn_worker_and_starts_no_other(tmp_path: Path) -> None:
    async with stage(tmp_path) as theatre:
        conductor, engine = theatre.conductor, theatre.engine
        await conductor.request([theatre.a], Wish(), hold=False)
        engine.stubborn["a"] = anyio.Event()
        conductor.request_later([theatre.b])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(conductor.close)
            await until(lambda: engine.latest("a").stops == 1)
            assert not engine.latest("a").gone.is_set()
            engine.stubborn["a"].set()
        await until(lambda: conductor.workers.get(theatre.a.instance_key) is None)
        assert theatre.state(theatre.b) is InstanceState.UNLOADED
        assert engine.loads == ["a"]


async def test_news_of_an_earlier_worker_does_not_touch_a_later_one(tmp_path: Path) -> None:
    async with stage(tmp_path) as theatre:
        conductor = theatre.conductor
        await conductor.request([theatre.a], Wish(), hold=False)
        workers = conductor.workers
        for act in (workers.stop, workers.kill, workers.wake):
            act(theatre.a.instance_key, 99)
            act(theatre.b.instance_key, 1)
        await anyio.wait_all_tasks_blocked()
        present = workers.get(theatre.a.instance_key)
        assert present is not None
        assert not present.stopping
        await workers.exited(theatre.b.instance_key)  # there is none to wait for
