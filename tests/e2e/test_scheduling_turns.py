"""Whose turn it is, with real workers: those who wait, those who are busy, those who leave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_router_mw import Router
from llm_router_mw.types import ChatTask, FinishDelta, InstanceState
from tests.support.real_router import (
    HELLO,
    LONG_SECONDS,
    Story,
    pid_of,
    reached,
    real_router,
    say,
    state,
    text_of,
    view,
    waits,
)
from tests.support.tiny_models import write_tiny_llama
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

LONG_ANSWER = ChatTask(messages=tuple(HELLO), max_tokens=300)


async def test_a_busy_model_is_not_disturbed_and_the_next_is_served_after(letters: Path) -> None:
    story = Story()
    async with (
        real_router(story, models_dir=letters, models_max=1) as router,
        anyio.create_task_group() as tasks,
    ):
        async with router.acquire("a") as lease:
            stream = lease.stream(LONG_ANSWER)
            deltas = [await anext(stream)]
            tasks.start_soon(say, router, "b")
            await waits(router, "b")
            deltas += [delta async for delta in stream]
            assert state(router, "a") is InstanceState.LOADED
            assert state(router, "b") is InstanceState.UNLOADED
        assert isinstance(deltas[-1], FinishDelta)
        assert deltas[-1].reason == "length"
        assert len(text_of(deltas)) >= 300
        await until(lambda: story.count(InstanceState.LOADED, "b"), LONG_SECONDS)
    assert story.evicted() == ["a"]
    assert story.happened_in_order(("a", InstanceState.UNLOADED), ("b", InstanceState.LOADING))


async def test_three_that_wait_for_one_model_cost_one_eviction(letters: Path) -> None:
    story = Story()
    answers: list[str] = []
    async with real_router(story, models_dir=letters, models_max=1) as router:

        async def ask() -> None:
            answers.append(await say(router, "b"))

        async with anyio.create_task_group() as tasks, router.acquire("a"):
            for _ in range(3):
                tasks.start_soon(ask)
            await waits(router, "b", 3)
        assert story.evicted() == ["a"]
        assert (story.loads("a"), story.loads("b")) == (1, 1)
    assert len(answers) == 3
    assert len(set(answers)) == 1


async def test_two_cold_models_load_at_once_and_only_the_idle_one_leaves(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=3) as router:
        await say(router, "c")
        async with router.acquire("d"), anyio.create_task_group() as tasks:
            for model in ("a", "b"):
                tasks.start_soon(say, router, model)
            await until(lambda: story.loads("a") and story.loads("b"), LONG_SECONDS)
        assert story.evicted() == ["c"]
        # One of the two had room at once: the other's eviction did not hold it up.
        first = next(model for model, _ in story.changes if model in "ab")
        assert story.happened_in_order(
            (first, InstanceState.LOADING), ("c", InstanceState.UNLOADED)
        )
        assert story.loads("d") == 1


async def test_loads_of_two_models_overlap(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=3) as router:
        await say(router, "c")
        async with anyio.create_task_group() as tasks:
            for model in ("a", "b"):
                tasks.start_soon(say, router, model)
        for late in "ab":
            for early in "ab":
                assert story.happened_in_order(
                    (late, InstanceState.LOADING), (early, InstanceState.LOADED)
                )
        assert state(router, "c") is InstanceState.LOADED


async def test_one_that_leaves_the_queue_costs_nobody_anything(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=1) as router:
        async with anyio.create_task_group() as tasks, router.acquire("a"):
            leaving = anyio.CancelScope()

            async def give_up() -> None:
                with leaving:
                    await say(router, "b")

            tasks.start_soon(give_up)
            await waits(router, "b")
            tasks.start_soon(say, router, "c")
            await waits(router, "c")
            leaving.cancel()
            await waits(router, "b", 0)
            assert state(router, "a") is InstanceState.LOADED
        assert state(router, "c") is InstanceState.LOADED
        assert story.loads("b") == 0
        assert story.evicted() == ["a"]


async def test_the_last_one_that_leaves_the_queue_spares_the_one_that_is_loaded(
    letters: Path,
) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=1, max_wait_seconds=0) as router:
        async with router.acquire("a"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(say, router, "b")
                await reached(router, "a", InstanceState.DRAINING)
                tasks.cancel_scope.cancel()
            assert state(router, "a") is InstanceState.LOADED
        assert state(router, "a") is InstanceState.LOADED
        await say(router, "a")
        assert story.loads("a") == 1


@pytest.fixture(scope="module")
def slow_to_load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vocabulary takes some time to read."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    return write_tiny_llama(path, n_vocab=200_000, n_embd=8, n_head=1, n_layer=1)


async def begun(router: Router, story: Story, model: str) -> int:
    """Return the process that loads *model*, once it does."""
    await until(lambda: any(e.model == model and e.kind == "progress" for e in story.events), 40)
    return pid_of(router, model)


async def test_a_load_that_nobody_wants_any_more_is_aborted(slow_to_load: Path) -> None:
    story = Story()
    async with real_router(story, models={"large": slow_to_load}) as router:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(say, router, "large")
            pid = await begun(router, story, "large")
            tasks.cancel_scope.cancel()
        await reached(router, "large", InstanceState.UNLOADED)
        assert story.count(InstanceState.LOADED) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        # It can be had all the same.
        assert await say(router, "large")
        assert view(router, "large").error is None


async def test_a_load_goes_on_as_long_as_one_of_many_wants_it(slow_to_load: Path) -> None:
    story = Story()
    async with (
        real_router(story, models={"large": slow_to_load}) as router,
        anyio.create_task_group() as tasks,
    ):
        leaving = anyio.CancelScope()

        async def give_up() -> None:
            with leaving:
                await say(router, "large")

        tasks.start_soon(give_up)
        tasks.start_soon(say, router, "large")
        await begun(router, story, "large")
        leaving.cancel()
        await until(lambda: story.count(InstanceState.LOADED), LONG_SECONDS)
        assert story.loads() == 1


async def test_who_has_priority_is_served_first(letters: Path) -> None:
    served: list[str] = []
    models: dict[str, Any] = {name: {"path": letters / f"{name}.gguf"} for name in "abcd"}
    models["c"]["priority"] = 5
    async with real_router(models=models, models_max=1) as router:

        async def ask(model: str, priority: int) -> None:
            async with router.acquire(model, priority=priority):
                served.append(model)

        async with anyio.create_task_group() as tasks, router.acquire("a"):
            for model, priority in {"b": 0, "c": 0, "d": 9}.items():
                tasks.start_soon(ask, model, priority)
                await waits(router, model)
            assert [view(router, model).position for model in "dcb"] == [1, 2, 3]
    assert served == ["d", "c", "b"]
