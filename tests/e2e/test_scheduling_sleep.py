"""Idle models fall asleep and wake up again, with real workers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from llm_router_mw.errors import QueueTimeoutError
from llm_router_mw.types import HOST, InstanceState
from tests.support.answers import ask
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
from tests.support.served import served

LARGE = 2**16
"""Tokens of context: what sleep frees is more than a process holds by itself."""


@pytest.mark.asyncio
async def test_an_idle_model_falls_asleep_and_wakes_when_it_is_asked(letters: Path) -> None:
    story, clock = Story(), JumpingClock()
    models = {"a": {"path": letters / "a.gguf", "n_ctx": LARGE}}
    async with real_router(
        story, models=models, clock=clock, sleep_idle_seconds=100, watch_memory_seconds=0.1
    ) as router:
        before = await say(router, "a")
        pid, charged = pid_of(router, "a"), view(router, "a").memory[HOST]
        clock.jump(101)
        await reached(router, "a", InstanceState.SLEEPING)
        assert view(router, "a").memory[HOST] < charged / 2
        assert await say(router, "a") == before
        assert pid_of(router, "a") == pid
        assert (story.loads("a"), story.count(InstanceState.WAKING, "a")) == (1, 1)


def test_monitoring_neither_wakes_a_model_nor_keeps_it_awake(letters: Path) -> None:
    story = Story()
    pages = ["/models", "/v1/models", "/props?model=a&autoload=false", "/slots?model=a"]
    door = {"prefix": "/llm", "routes": ("inference", "management"), "admin_keys": ("key",)}
    with served(plugins=(story,), models_dir=letters, sleep_idle_seconds=0.3, door=door) as server:
        server.http.headers["Authorization"] = "Bearer key"
        server.http.base_url = httpx.URL(f"{server.url}/llm")
        ask(server.http, "a", max_tokens=2)

        def look() -> bool:
            for page in pages:
                assert server.http.get(page).status_code == 200, page
            return server.view("a").state is InstanceState.SLEEPING

        server.until(lambda _: look(), "that it falls asleep while it is watched")
        for _ in range(3):
            assert look()
        assert story.count(InstanceState.WAKING) == 0
        ask(server.http, "a", max_tokens=2)
        assert story.count(InstanceState.WAKING) == 1


@pytest.mark.asyncio
async def test_one_that_sleeps_leaves_its_place_to_another(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=1) as router:
        await say(router, "a")
        await router.sleep("a")
        await say(router, "b")
        assert state(router, "a") is InstanceState.SLEEPING
        assert story.evicted() == []


@pytest.mark.asyncio
async def test_one_that_wakes_evicts_another_first(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=1) as router:
        await say(router, "a")
        await router.sleep("a")
        pid = pid_of(router, "a")
        await say(router, "b")
        assert await say(router, "a")
        assert story.evicted() == ["b"]
        assert story.happened_in_order(("b", InstanceState.UNLOADED), ("a", InstanceState.WAKING))
        assert pid_of(router, "a") == pid


@pytest.mark.asyncio
async def test_one_that_wakes_waits_for_a_busy_one(letters: Path) -> None:
    async with real_router(models_dir=letters, models_max=1) as router:
        await say(router, "a")
        await router.sleep("a")
        async with router.acquire("b"):
            with pytest.raises(QueueTimeoutError):
                await say(router, "a", timeout_seconds=0.2)
            assert state(router, "a") is InstanceState.SLEEPING
        assert await say(router, "a")


@pytest.mark.asyncio
@pytest.mark.parametrize("evict_to", ["context", "full"])
async def test_a_victim_may_go_to_sleep_instead_of_ending(letters: Path, evict_to: str) -> None:
    story = Story()
    async with real_router(story, models_dir=letters, models_max=1, evict_to=evict_to) as router:
        answers = [await say(router, model) for model in "abab"]
        assert answers[:2] == answers[2:]
        assert (story.loads("a"), story.loads("b")) == (1, 1)
        assert story.evicted() == ["a", "b", "a"]
        assert view(router, "a").sleep_level == evict_to


@pytest.mark.asyncio
async def test_a_wake_that_fails_is_told_and_the_next_request_loads_anew(
    letters: Path, tmp_path: Path
) -> None:
    story, clock = Story(), JumpingClock()
    own = tmp_path / "own.gguf"
    own.write_bytes((letters / "a.gguf").read_bytes())
    async with real_router(story, models={"own": own}, clock=clock) as router:
        before = await say(router, "own")
        await router.sleep("own")
        content = own.read_bytes()
        own.write_bytes(content.replace(b"llama", b"alien"))
        with pytest.raises(Exception, match="alien"):
            await say(router, "own")
        await reached(router, "own", InstanceState.FAILED)
        own.write_bytes(content)
        clock.jump(11)
        assert await say(router, "own") == before
        assert story.loads("own") == 2
