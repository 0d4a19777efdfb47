"""What was said about models, with real workers: shared instances, groups, keep-alive, guesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_router_mw import Router
from llm_router_mw.errors import QueueTimeoutError
from llm_router_mw.types import InstanceState
from tests.support.real_router import (
    JumpingClock,
    Story,
    pid_of,
    reached,
    real_router,
    say,
    state,
    view,
)

pytestmark = pytest.mark.asyncio

WATCHED = 0.1
"""Seconds between two looks at the memory: each lets the scheduler see how late it is."""


# One instance under two names


def two_names(letters: Path) -> dict[str, Any]:
    """Return ``short`` and ``long``, over one file, and ``other``."""
    return {
        "short": {"path": letters / "a.gguf", "sleep_idle_seconds": 50},
        "long": {"path": letters / "a.gguf", "sleep_idle_seconds": 5000, "pinned": True},
        "other": letters / "b.gguf",
    }


async def test_two_names_are_one_worker(letters: Path) -> None:
    story = Story()
    async with real_router(story, models=two_names(letters)) as router:
        assert await say(router, "short") == await say(router, "long")
        assert pid_of(router, "short") == pid_of(router, "long")
        # Both names are told of the one load.
        assert (story.loads("short"), story.loads("long")) == (1, 1)
        await router.unload("short")
        assert state(router, "long") is state(router, "short") is InstanceState.LOADED
        await router.unload("long")
        assert state(router, "long") is state(router, "short") is InstanceState.UNLOADED


async def test_the_most_patient_of_the_names_in_use_says_when_it_sleeps(letters: Path) -> None:
    story, clock = Story(), JumpingClock()
    async with real_router(
        story, models=two_names(letters), clock=clock, watch_memory_seconds=WATCHED
    ) as router:
        await say(router, "short")
        clock.jump(51)
        await reached(router, "short", InstanceState.SLEEPING)
        await say(router, "long")
        clock.jump(51)
        await say(router, "other")
        assert state(router, "short") is InstanceState.LOADED
        # When the patient one no longer uses it, the other's limit holds, and is over.
        await router.unload("long")
        await reached(router, "short", InstanceState.SLEEPING)
        assert story.loads("short") == 1


async def test_it_is_pinned_while_a_name_that_is_pinned_uses_it(letters: Path) -> None:
    story = Story()
    async with real_router(story, models=two_names(letters), models_max=1) as router:
        await say(router, "short")
        await say(router, "other")
        assert sorted(story.evicted()) == ["long", "short"]
        await say(router, "long")
        with pytest.raises(QueueTimeoutError):
            await say(router, "other", timeout_seconds=0.2)
        assert state(router, "short") is InstanceState.LOADED
        assert view(router, "short").pinned
        # Without its pinned name it is a victim like any other.
        await say(router, "short")
        await router.unload("long")
        assert state(router, "short") is InstanceState.LOADED
        assert await say(router, "other")
        assert state(router, "short") is InstanceState.UNLOADED


# Groups


async def test_of_an_exclusive_group_one_is_loaded_at_a_time(letters: Path) -> None:
    story = Story()
    groups = {"one": {"members": ("a", "b")}}
    async with real_router(story, models_dir=letters, groups=groups) as router:
        await say(router, "c")
        await say(router, "a")
        assert story.evicted() == []
        await say(router, "b")
        # There was room for all of them, and the one that is older is in no group.
        assert story.evicted() == ["a"]
        assert story.happened_in_order(("a", InstanceState.UNLOADED), ("b", InstanceState.LOADING))
        assert state(router, "c") is InstanceState.LOADED


async def test_a_group_is_loaded_together_and_a_request_waits_for_all_of_it(
    letters: Path,
) -> None:
    story = Story()
    groups = {"all": {"members": ("a", "b"), "mode": "together"}}
    async with real_router(story, models_dir=letters, groups=groups, models_max=2) as router:
        await say(router, "c")
        async with router.acquire("a"):
            assert state(router, "b") is InstanceState.LOADED
        assert story.evicted() == ["c"]
        assert (story.loads("a"), story.loads("b")) == (1, 1)


async def test_a_group_that_is_together_goes_together_or_not_at_all(letters: Path) -> None:
    story = Story()
    groups = {"all": {"members": ("a", "b"), "mode": "together"}}
    async with real_router(story, models_dir=letters, groups=groups, models_max=3) as router:
        await say(router, "a")
        await say(router, "c")
        async with router.acquire("a"):
            # Nobody uses b, which is older than c; but a, which is in use, may not be without it.
            await say(router, "d")
            assert story.evicted() == ["c"]
        async with router.acquire("d", "c"):
            assert sorted(story.evicted()[1:]) == ["a", "b"]


# How long one stays


async def test_a_request_may_let_go_of_its_model_at_once(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters) as router:
        await say(router, "b")
        await say(router, "a", keep_alive_seconds=0)
        await reached(router, "a", InstanceState.UNLOADED)
        assert state(router, "b") is InstanceState.LOADED
        # A request that came later, and said nothing, would have kept it.
        async with router.acquire("a", keep_alive_seconds=0):
            await say(router, "a")
        await reached(router, "a", InstanceState.UNLOADED)
        assert story.loads("a") == 2


async def test_a_request_may_keep_its_model_past_its_idle_limit(letters: Path) -> None:
    clock = JumpingClock()
    async with real_router(
        models_dir=letters, clock=clock, unload_idle_seconds=50, watch_memory_seconds=WATCHED
    ) as router:
        await say(router, "a", keep_alive_seconds=-1)
        await say(router, "b")
        await say(router, "c", keep_alive_seconds=100)
        clock.jump(51)
        await reached(router, "b", InstanceState.UNLOADED)
        assert state(router, "a") is state(router, "c") is InstanceState.LOADED
        clock.jump(50)
        await reached(router, "c", InstanceState.UNLOADED)
        assert state(router, "a") is InstanceState.LOADED
        # The next request says nothing, so the limit holds again.
        await say(router, "a")
        clock.jump(51)
        await reached(router, "a", InstanceState.UNLOADED)


async def test_what_is_kept_still_makes_room_for_another(letters: Path) -> None:
    async with real_router(models_dir=letters, models_max=1) as router:
        await say(router, "a", keep_alive_seconds=-1)
        assert await say(router, "b")
        assert state(router, "a") is InstanceState.UNLOADED


# Loaded before it is asked for


async def test_models_are_loaded_when_the_router_starts(letters: Path) -> None:
    story = Story()
    models: dict[str, Any] = {name: letters / f"{name}.gguf" for name in "ab"}
    models["last"] = {"path": letters / "c.gguf", "preload": True}
    async with real_router(story, models=models, preload=("b", "a")) as router:
        for model in ("a", "b", "last"):
            await reached(router, model, InstanceState.LOADED)
        begun = [model for model, changed in story.changes if changed is InstanceState.LOADING]
        assert begun == ["b", "a", "last"]
        await say(router, "a")
        assert story.loads("a") == 1


async def learned_router(router: Router) -> None:
    """Let clients ask for ``b`` whenever they have asked for ``a``."""
    for model in "ababab":
        await say(router, model)
    await router.unload("b")


async def test_what_usually_follows_is_loaded_ahead_where_there_is_room(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=2, prefetch=True) as router:
        await learned_router(router)
        assert story.loads("b") == 1
        await say(router, "a")
        await reached(router, "b", InstanceState.LOADED)
        assert "probably" in story.why("b", InstanceState.LOADING)
        await say(router, "b")
        assert story.loads("b") == 2


async def test_what_follows_is_learned_for_each_owner_by_himself(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=0, prefetch=True) as router:
        for _ in range(3):
            for owner, model in (("ann", "a"), ("bob", "a"), ("ann", "b"), ("bob", "c")):
                await say(router, model, owner=owner)
        for model in "abc":
            await router.unload(model)
        await say(router, "a", owner="eve")  # of whom nothing is known
        await say(router, "a", owner="bob")
        await reached(router, "c", InstanceState.LOADED)
        assert state(router, "b") is InstanceState.UNLOADED


async def test_nobody_leaves_for_a_guess(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=2, prefetch=True) as router:
        await learned_router(router)
        await say(router, "c")
        assert state(router, "a") is state(router, "c") is InstanceState.LOADED
        await say(router, "a")
        assert state(router, "c") is InstanceState.LOADED
        assert state(router, "b") is InstanceState.UNLOADED
        assert story.evicted() == []
