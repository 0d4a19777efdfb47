"""Models share a limit that is set for the host, with real workers: who has to leave, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_router_mw import Router
from llm_router_mw.errors import ModelTooLargeError
from llm_router_mw.types import HOST, InstanceState
from tests.support.real_router import Story, real_router, say, state, view

pytestmark = pytest.mark.asyncio

MIB = 1024**2
TOKENS = {"small": 512, "medium": 2**16, "giant": 2**17, "colossal": 2**20}
"""Of context, which is most of what the large ones need."""
BESIDE_THE_GIANT = 48
"""MiB that are left: more than the small one holds, less than the medium one does."""


@pytest.fixture
def options(letters: Path, tmp_path: Path) -> dict[str, Any]:
    models = {name: {"path": letters / "a.gguf", "n_ctx": n_ctx} for name, n_ctx in TOKENS.items()}
    return {"models": models, "observations_dir": tmp_path / "observations"}


async def price_of(router: Router, model: str) -> int:
    """Return what a load of *model* is thought to need of the host, in bytes."""
    running = router._running
    assert running is not None
    key = view(router, model).model.instance_key
    await running.conductor.know_price(key)
    instance = running.scheduler.instance(key)
    assert instance is not None
    assert instance.prices
    return instance.prices[0].bytes_by_pool[HOST]


@asynccontextmanager
async def limited_router(story: Story, options: dict[str, Any]) -> AsyncIterator[Router]:
    """Run a router that has room for the giant and a small one."""
    async with real_router(**options) as router:
        needed = await price_of(router, "giant")
    limit = needed // MIB + BESIDE_THE_GIANT
    async with real_router(story, memory_limit={HOST: limit}, **options) as router:
        yield router
    # Whenever a load began, all that is charged had room.
    begun = [e.data["memory"][HOST] for e in story.events if "memory" in e.data]
    assert begun
    assert all(each["left_bytes"] >= 0 for each in begun)


async def test_who_needs_room_evicts_what_it_must_and_no_more(options: dict[str, Any]) -> None:
    story = Story()
    async with limited_router(story, options) as router:
        await say(router, "small")
        await say(router, "medium")
        assert story.evicted() == []

        await say(router, "giant")
        # The small one was idle for longer, but its leaving is not enough and not needed.
        assert story.evicted() == ["medium"]
        assert story.happened_in_order(
            ("medium", InstanceState.UNLOADED), ("giant", InstanceState.LOADING)
        )

        await say(router, "small")
        await say(router, "medium")
        assert story.evicted() == ["medium", "giant"]
        assert state(router, "small") is state(router, "medium") is InstanceState.LOADED
        assert story.loads("small") == 1


async def test_what_can_never_fit_is_refused_at_once_and_nobody_leaves(
    options: dict[str, Any],
) -> None:
    story = Story()
    async with limited_router(story, options) as router:
        await say(router, "small")
        await say(router, "medium")
        with pytest.raises(ModelTooLargeError) as caught:
            await say(router, "colossal")
        assert caught.value.status == 507
        there = caught.value.fields["devices"][HOST]
        assert there["needed_bytes"] > there["available_bytes"] > 0
        assert story.evicted() == []
        assert story.loads("colossal") == 0
        assert state(router, "medium") is InstanceState.LOADED


async def test_one_that_sleeps_is_charged_little_and_needs_room_to_wake(
    options: dict[str, Any],
) -> None:
    story = Story()
    async with limited_router(story, options) as router:
        await say(router, "medium")
        awake = view(router, "medium").memory[HOST]
        await router.sleep("medium")
        asleep = view(router, "medium").memory[HOST]
        assert asleep < BESIDE_THE_GIANT * MIB < awake
        # Beside its residue there is room for the giant, which has to leave when it wakes.
        await say(router, "giant")
        assert state(router, "medium") is InstanceState.SLEEPING
        await say(router, "medium")
        assert story.evicted() == ["giant"]
        assert story.happened_in_order(
            ("giant", InstanceState.UNLOADED), ("medium", InstanceState.WAKING)
        )
        assert story.loads("medium") == 1
