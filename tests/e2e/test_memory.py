"""Models share a small pool of memory, with real workers that hold real memory of it."""

from __future__ import annotations

import anyio
import pytest

from llm_router_mw import Router
from llm_router_mw.types import HOST, InstanceState
from tests.support.memory_pool import UNIT, Pool, needed_units, pooled_router, sampled
from tests.support.real_router import Story, say, state, view

pytestmark = pytest.mark.asyncio

Models = dict[str, dict[str, str]]


async def embed(router: Router) -> None:
    async with router.acquire("embedding") as lease:
        assert (await lease.embed("hello")).vectors


def loaded(router: Router) -> set[str]:
    return {each.id for each in router.models() if each.state is InstanceState.LOADED}


@pytest.mark.parametrize("use_mmap", [True, False])
async def test_a_giant_displaces_what_it_must_and_the_others_come_back(
    sized_models: Models, use_mmap: bool
) -> None:
    story, pool = Story(), Pool()
    models = {name: sized_models[name] for name in ("embedding", "medium", "giant")}
    with sampled() as samples:
        async with pooled_router(pool, story, models=models, use_mmap=use_mmap) as router:
            await embed(router)
            await say(router, "medium")
            assert loaded(router) == {"embedding", "medium"}
            assert story.evicted() == []

            await say(router, "giant")
            # The embedding model was idle for longer, and its leaving would not have been enough.
            assert story.evicted() == ["medium"]
            assert loaded(router) == {"embedding", "giant"}
            assert story.happened_in_order(
                ("medium", InstanceState.UNLOADED), ("giant", InstanceState.LOADING)
            )

            await embed(router)
            await say(router, "medium")
            assert story.evicted() == ["medium", "giant"]
            assert loaded(router) == {"embedding", "medium"}
            assert story.loads("embedding") == 1
    samples.check(pool)
    # All that memory was really held: side by side the two would not have fitted.
    assert samples.most_bytes > 80 * UNIT


async def test_a_giant_displaces_both_where_one_is_not_enough(sized_models: Models) -> None:
    story, pool = Story(), Pool(units=102)
    models = {name: sized_models[name] for name in ("embedding", "medium", "giant")}
    with sampled() as samples:
        async with pooled_router(pool, story, models=models) as router:
            await embed(router)
            await say(router, "medium")
            await say(router, "giant")
            assert sorted(story.evicted()) == ["embedding", "medium"]
            await embed(router)
            assert "embedding" in loaded(router)
    samples.check(pool)


async def test_what_a_model_was_measured_to_hold_replaces_what_was_thought(
    sized_models: Models,
) -> None:
    story = Story()
    async with pooled_router(
        Pool(), story, models={"medium": sized_models["medium"]}, use_mmap=False
    ) as router:
        await say(router, "medium")
        held = view(router, "medium").memory[HOST] / UNIT
        assert 35 < held < 39
        assert held < needed_units(story, "medium") < held + 20


async def test_two_that_race_for_the_same_room_are_served_one_after_the_other(
    sized_models: Models,
) -> None:
    story, pool = Story(), Pool()
    models = {name: sized_models[name] for name in ("left", "right")}
    with sampled() as samples:
        async with pooled_router(pool, story, models=models) as router:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say, router, "left")
                tasks.start_soon(say, router, "right")
            assert (story.loads("left"), story.loads("right")) == (1, 1)
            (first,) = story.evicted()
            second = "right" if first == "left" else "left"
            assert state(router, second) is InstanceState.LOADED
            assert story.happened_in_order(
                (first, InstanceState.UNLOADED), (second, InstanceState.LOADING)
            )
    samples.check(pool)
