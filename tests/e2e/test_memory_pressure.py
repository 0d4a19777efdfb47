"""Other programs take memory, and models turn out larger than they were thought."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pytest

from llm_router_mw import Router
from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.memory.observed import ObservedEstimator
from llm_router_mw.memory.placement import AutoPlacement
from llm_router_mw.protocols import Estimator, InstanceHandle, MemoryAccount, SleepHandler
from llm_router_mw.router.process import worker_environment
from llm_router_mw.types import (
    HOST,
    Cost,
    Device,
    InstanceState,
    MemoryEstimate,
    Model,
    Placement,
    Step,
)
from tests.support.memory_pool import (
    MARGIN_UNITS,
    POOL_UNITS,
    UNIT,
    Pool,
    needed_units,
    pooled_router,
    sampled,
)
from tests.support.real_router import LONG_SECONDS, Story, reached, say, state, talk, view
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

Models = dict[str, dict[str, str]]


class LiesOnce:
    """An estimator that thinks of the first load as a quarter of what it is; then it is silent."""

    name = "lies-once"

    def __init__(self) -> None:
        self.lied = False

    @hookimpl
    def llm_router_register_estimators(self, config: RouterConfig) -> list[Estimator]:
        return [self]

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate | None:
        if self.lied or model.id != "giant":
            return None
        self.lied = True
        return MemoryEstimate(
            expected={HOST: Cost(weights_bytes=20 * UNIT)},
            upper={HOST: 20 * UNIT},
            source=self.name,
            confidence="low",
        )


class Hoard:
    """A plugin that holds memory of the pool, and gives back what it is asked for."""

    name = "hoard"

    def __init__(self, pool: Pool, units: int) -> None:
        self._pool = pool
        self.size = units * UNIT
        self.asked: list[int] = []
        self.shed_while: list[InstanceState] = []
        self.state: Callable[[], InstanceState] = lambda: InstanceState.UNLOADED

    @hookimpl
    def llm_router_register_sleep_handlers(self, config: RouterConfig) -> list[SleepHandler]:
        return [self]

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        pass

    async def resume(self, handle: InstanceHandle) -> None:
        pass

    def use_account(self, account: MemoryAccount) -> None:
        self._account = account
        self._say()

    async def shed(self, pool: str, n_bytes: int) -> None:
        self.asked.append(n_bytes)
        self.shed_while.append(self.state())
        await anyio.sleep(0.05)  # it takes its time
        self.size -= n_bytes
        self._say()

    def _say(self) -> None:
        self._pool.eaten_bytes = self.size
        self._account.hold({HOST: self.size})


async def learned(router: Router) -> None:
    """Return when the next load of ``giant`` will be taken for what the last one was."""
    running = router._running
    assert running is not None
    key = view(router, "giant").model.instance_key
    instance = running.scheduler.instance(key)
    assert instance is not None

    def is_known() -> bool:
        prices = instance.prices or ()
        return any(price.bytes_by_pool[HOST] > 75 * UNIT for price in prices)

    with anyio.fail_after(LONG_SECONDS):
        while not is_known():
            # As a request does: it is priced again only for those who ask.
            await running.conductor.know_price(key)
            await anyio.sleep(0.01)


class TestAnotherProgram:
    async def test_idle_models_make_way_for_it_and_busy_ones_do_not(
        self, sized_models: Models
    ) -> None:
        story, pool = Story(), Pool()
        models = {"idle": sized_models["medium"], "busy": _other(sized_models["medium"])}
        async with pooled_router(pool, story, models=models) as router:
            await say(router, "idle")
            async with router.acquire("busy") as lease:
                pool.eaten_bytes = 50 * UNIT
                await reached(router, "idle", InstanceState.UNLOADED)
                assert "no longer room" in story.why("idle", InstanceState.STOPPING)
                # There is not even room for one now; whoever is used stays all the same.
                pool.eaten_bytes = 90 * UNIT
                seen = pool.looks
                await until(lambda: pool.looks > seen + 2, LONG_SECONDS)
                assert state(router, "busy") is InstanceState.LOADED
                await talk(lease)
                assert story.evicted() == ["idle"]
            await reached(router, "busy", InstanceState.UNLOADED)
            pool.eaten_bytes = 0
            seen = pool.looks
            await until(lambda: pool.looks > seen + 2, LONG_SECONDS)
            await say(router, "idle")
        assert story.evicted() == ["idle", "busy"]


class TestWhatIsNoModels:
    async def test_it_is_given_back_before_any_model_leaves(self, sized_models: Models) -> None:
        story, pool = Story(), Pool()
        hoard = Hoard(pool, 70)
        models = {name: sized_models[name] for name in ("embedding", "medium")}
        async with pooled_router(pool, story, hoard, models=models, use_mmap=False) as router:
            hoard.state = lambda: state(router, "medium")
            await router.load("embedding")
            assert hoard.asked == []
            await router.load("medium")
            assert story.evicted() == []
            # Its place was taken already, and the load waited until that was free.
            assert hoard.shed_while[0] is InstanceState.LOADING
            # No more than was needed; a process that has just been started adds a little.
            needed = needed_units(story, "embedding") + needed_units(story, "medium")
            lacking = needed + 70 + MARGIN_UNITS - POOL_UNITS
            assert 0 < hoard.asked[0] / UNIT <= lacking
            assert sum(hoard.asked) / UNIT <= lacking + 10


class TestLargerThanThought:
    async def test_it_is_charged_for_what_it_holds_and_idle_models_make_way(
        self, sized_models: Models, tmp_path: Path
    ) -> None:
        story = Story()
        models = {name: sized_models[name] for name in ("medium", "giant")}
        async with pooled_router(
            Pool(), story, LiesOnce(), models=models, observations_dir=tmp_path
        ) as router:
            await say(router, "medium")
            await say(router, "giant")
            assert needed_units(story, "giant") == 20
            assert view(router, "giant").memory[HOST] > 75 * UNIT
            await reached(router, "medium", InstanceState.UNLOADED)
            assert story.happened_in_order(
                ("giant", InstanceState.LOADED), ("medium", InstanceState.STOPPING)
            )
            assert state(router, "giant") is InstanceState.LOADED

            await learned(router)
            await say(router, "medium")
            await say(router, "giant")
            assert needed_units(story, "giant") > 80
            assert story.evicted() == ["medium", "giant", "medium"]

    async def test_it_wakes_only_where_there_is_room_for_all_of_it(
        self, sized_models: Models, tmp_path: Path
    ) -> None:
        story = Story()
        models = {name: sized_models[name] for name in ("medium", "giant")}
        async with pooled_router(
            Pool(), story, LiesOnce(), models=models, observations_dir=tmp_path
        ) as router:
            await say(router, "giant")
            await learned(router)
            await router.sleep("giant")
            await say(router, "medium")
            await router.wake("giant")
            assert story.evicted() == ["medium"]
            assert story.happened_in_order(
                ("medium", InstanceState.UNLOADED), ("giant", InstanceState.WAKING)
            )

    async def test_the_next_router_knows_it_before_the_load(
        self, sized_models: Models, tmp_path: Path
    ) -> None:
        models = {name: sized_models[name] for name in ("medium", "giant")}
        options = {"models": models, "observations_dir": tmp_path}
        async with pooled_router(Pool(), LiesOnce(), **options) as router:
            await say(router, "giant")
            await learned(router)
            model = view(router, "giant").model
            held = view(router, "giant").memory[HOST] / UNIT

        known = ObservedEstimator(worker_environment(os.environ), tmp_path)
        (placement,) = AutoPlacement().place(model, ())
        estimate = known.estimate(model, placement, ())
        assert estimate is not None
        assert estimate.expected[HOST].total_bytes / UNIT == pytest.approx(held, rel=0.05)

        story, pool = Story(), Pool()
        with sampled() as samples:
            async with pooled_router(pool, story, **options) as router:
                await say(router, "medium")
                await say(router, "giant")
                assert needed_units(story, "giant") == estimate.upper[HOST] / UNIT
                assert story.happened_in_order(
                    ("medium", InstanceState.UNLOADED), ("giant", InstanceState.LOADING)
                )
        samples.check(pool)


def _other(model: dict[str, str]) -> dict[str, str]:
    """Return the same file as an instance of its own."""
    return {**model, "n_ctx": 256}  # type: ignore[dict-item]
