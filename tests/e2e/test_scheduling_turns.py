"""Whose turn it is, with real workers: the queue, the busy, and those who leave."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from llm_router_mw.types import ChatTask, InstanceState
from tests.support.real_router import (
    LONG_SECONDS,
    Story,
    reached,
    real_router,
    say,
    state,
    talk,
    text_of,
    view,
    waits,
)
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

LONG_ANSWER = ChatTask(messages=({"role": "user", "content": "hello"},), max_tokens=300)


async def test_a_busy_model_is_not_disturbed_and_the_next_is_served_after(
    models_dir: Path,
) -> None:
    story = Story()
    async with (
        real_router(story, models_dir=models_dir, models_max=1) as router,
        anyio.create_task_group() as tasks,
    ):
        async with router.acquire("a") as lease:
            stream = lease.stream(LONG_ANSWER)
            first = await anext(stream)
            tasks.start_soon(say, router, "b")
            await waits(router, "b")
            deltas = [first, *[delta async for delta in stream]]
            assert state(router, "a") is InstanceState.LOADED
            assert state(router, "b") is InstanceState.UNLOADED
        assert deltas[-1].reason == "length"
        assert len(text_of(deltas)) >= 300
        await until(lambda: story.count(InstanceState.LOADED, "b") == 1, LONG_SECONDS)
        assert story.evicted() == ["a"]
        # The room is taken only when the one who had it has gone.
        gone = story.states("a", "b").index(("a", "unloaded"))
        assert gone < story.states("a", "b").index(("b", "loading"))


async def test_three_that_wait_for_one_model_cost_one_eviction(models_dir: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=models_dir, models_max=1) as router:
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await say(router, "b"))

        async with anyio.create_task_group() as tasks:
            async with router.acquire("a"):
                for _ in range(3):
                    tasks.start_soon(ask)
                await waits(router, "b", 3)
        assert len(answers) == 3
        assert len(set(answers)) == 1
        assert story.evicted() == ["a"]
        assert (story.loads("a"), story.loads("b")) == (1, 1)
