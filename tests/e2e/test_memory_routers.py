"""Two routers on one machine, each with workers of its own, and one pool of memory for both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from llm_router_mw import Router
from llm_router_mw.memory.machine_lock import MachineLock
from llm_router_mw.types import HOST, InstanceState
from tests.support.memory_pool import UNIT, Pool, pooled_router, sampled
from tests.support.real_router import LONG_SECONDS, Story, say, state, view
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

Models = dict[str, dict[str, str]]
HELD_BACK = "something else on the machine took its room"


def held_back(story: Story) -> int:
    """Return how often a load was held back."""
    return sum(HELD_BACK in event.reason for event in story.events)


async def priced(router: Router, model: str) -> None:
    """Let *router* know what *model* needs, so that a request for it is decided at once."""
    running = router._running
    assert running is not None
    await running.conductor.know_price(view(router, model).model.instance_key)


@asynccontextmanager
async def two_routers(
    pool: Pool, stories: tuple[Story, Story], models: Models
) -> AsyncIterator[tuple[Router, Router]]:
    """Run two routers over *pool*, one with the model ``left`` and one with ``right``."""
    # Pages of mapped files count as free for the other router, as they do for any program.
    options: dict[str, Any] = {"use_mmap": False, "watch_memory_seconds": 1.0}
    async with (
        pooled_router(pool, stories[0], models={"left": models["left"]}, **options) as one,
        pooled_router(pool, stories[1], models={"right": models["right"]}, **options) as two,
    ):
        yield one, two


async def test_of_two_routers_that_race_for_the_same_room_one_waits(sized_models: Models) -> None:
    pool, stories = Pool(), (Story(), Story())
    served: list[str] = []

    async def serve(router: Router, model: str) -> None:
        await say(router, model)
        served.append(model)
        # What one router keeps the other cannot ask for.
        await router.unload(model)

    with sampled() as samples:
        async with (
            two_routers(pool, stories, sized_models) as (one, two),
            anyio.create_task_group() as tasks,
        ):
            await priced(one, "left")
            await priced(two, "right")
            tasks.start_soon(serve, one, "left")
            tasks.start_soon(serve, two, "right")
    assert sorted(served) == ["left", "right"]
    # The one that was held back had no worker meanwhile, and each was loaded once.
    assert sum(map(held_back, stories)) >= 1
    assert [story.count(InstanceState.LOADED) for story in stories] == [1, 1]
    samples.check(pool)


async def test_a_load_that_is_held_back_goes_on_when_the_others_reservation_ends(
    sized_models: Models,
) -> None:
    story = Story()
    another_router = MachineLock()
    async with pooled_router(Pool(), story, models={"medium": sized_models["medium"]}) as router:
        reservation = another_router.try_hold([HOST])
        assert reservation is not None
        with reservation:
            reservation.reserve({HOST: 100 * UNIT})
            reservation.unlock()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say, router, "medium")
                await until(lambda: held_back(story) >= 2, LONG_SECONDS)
                assert view(router, "medium").waiting == 1
                assert story.count(InstanceState.LOADED) == 0
                reservation.release()
        assert state(router, "medium") is InstanceState.LOADED


async def test_a_wake_is_held_back_too_and_sleeps_on_meanwhile(sized_models: Models) -> None:
    story = Story()
    another_router = MachineLock()
    async with pooled_router(Pool(), story, models={"medium": sized_models["medium"]}) as router:
        await say(router, "medium")
        await router.sleep("medium")
        asleep = view(router, "medium").memory[HOST]
        reservation = another_router.try_hold([HOST])
        assert reservation is not None
        with reservation:
            reservation.reserve({HOST: 100 * UNIT})
            reservation.unlock()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say, router, "medium")
                await until(lambda: held_back(story) >= 2, LONG_SECONDS)
                assert story.happened_in_order(
                    ("medium", InstanceState.SLEEPING), ("medium", InstanceState.WAKING)
                )
                await until(lambda: state(router, "medium") is InstanceState.SLEEPING, LONG_SECONDS)
                # It is charged with what it holds asleep, which the system tells to the page.
                assert abs(view(router, "medium").memory[HOST] - asleep) < UNIT
                assert view(router, "medium").waiting == 1
                reservation.release()
        # In the process that it had.
        assert state(router, "medium") is InstanceState.LOADED
        assert story.loads("medium") == 1


async def test_two_routers_of_which_one_wakes_keep_to_the_pool(
    sized_models: Models,
) -> None:
    pool, stories = Pool(), (Story(), Story())
    with sampled() as samples:
        async with two_routers(pool, stories, sized_models) as (one, two):
            await say(one, "left")
            await one.sleep("left")
            await priced(two, "right")

            async def serve(router: Router, model: str) -> None:
                await say(router, model)
                await router.unload(model)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve, one, "left")
                tasks.start_soon(serve, two, "right")
    # Whether one is held back at the gate, or sees in time that there is no room, is their affair.
    assert [story.count(InstanceState.LOADED) for story in stories] == [2, 1]
    samples.check(pool)


async def test_what_another_router_is_about_to_take_costs_no_idle_model_its_place(
    sized_models: Models,
) -> None:
    story = Story()
    another_router = MachineLock()
    models = {name: sized_models[name] for name in ("embedding", "medium", "left")}
    async with pooled_router(Pool(), story, models=models) as router:
        await say(router, "medium")
        reservation = another_router.try_hold([HOST])
        assert reservation is not None
        with reservation:
            reservation.reserve({HOST: 90 * UNIT})
            reservation.unlock()
            with anyio.move_on_after(LONG_SECONDS):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(router.load, "embedding")
                    await until(lambda: held_back(story) >= 2, LONG_SECONDS)
                    tasks.cancel_scope.cancel()
            assert story.evicted() == []
            assert state(router, "medium") is InstanceState.LOADED
