"""Sleep and wake while others work, watch, and kill: nothing is lost, nobody is in the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from llm_router_mw import Router
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.memory.processes import process_memory
from llm_router_mw.types import HOST, InstanceState, SleepLevel
from tests.support.answers import ask, client
from tests.support.memory_pool import worker_pids
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
from tests.support.served import Served, served
from tests.support.tiny_models import write_tiny_llama
from tests.support.waiting import until

N_CYCLES = 200
N_CLIENTS = 3
MIB = 1 << 20
MONITORS_PER_SECOND = 100
WATCH_SECONDS = 1.5
SLOWEST_SECONDS = 1.0
"""Of one answer to a monitor, on a machine that is busy; it would be as long as the worker stands
still if it had to wait for that."""
LEVELS: list[SleepLevel] = ["context", "full"]


@pytest.mark.asyncio
@pytest.mark.parametrize("level", LEVELS)
async def test_200_cycles_under_load_lose_and_leak_nothing(
    letters: Path, level: SleepLevel
) -> None:
    story = Story()
    models = {"a": {"path": letters / "a.gguf"}}
    async with real_router(story, models=models, queue_timeout_seconds=40) as router:
        expected = await say(router, "a")
        pid, answers, left = pid_of(router, "a"), 0, []

        async def keep_asking() -> None:
            nonlocal answers
            while True:
                assert await say(router, "a") == expected
                answers += 1

        async def cycle(times: int) -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(N_CLIENTS):
                    tasks.start_soon(keep_asking)
                until_then = story.count(InstanceState.WAKING) + times
                while story.count(InstanceState.WAKING) < until_then:
                    await reached(router, "a", InstanceState.LOADED)
                    await router.sleep("a", level=level)
                tasks.cancel_scope.cancel()
            await router.sleep("a", level=level)
            memory = process_memory(pid)
            assert memory is not None
            left.append(memory.private_bytes)

        await cycle(N_CYCLES // 4)
        await cycle(N_CYCLES - N_CYCLES // 4)
        assert await say(router, "a") == expected
        assert answers > N_CYCLES / 2
        assert pid_of(router, "a") == pid
        assert story.loads("a") == 1
        assert left[1] - left[0] < MIB


@pytest.mark.asyncio
async def test_a_preloaded_model_that_nobody_used_falls_asleep(letters: Path) -> None:
    story, clock = Story(), JumpingClock()
    async with real_router(
        story, models_dir=letters, preload=["a"], clock=clock, sleep_idle_seconds=100
    ) as router:
        await reached(router, "a", InstanceState.LOADED)
        clock.jump(101)
        await say(router, "b")  # time is looked at when something happens
        await reached(router, "a", InstanceState.SLEEPING)
        assert state(router, "b") is InstanceState.LOADED
        assert story.count(InstanceState.WAKING) == 0


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Stop a process, and let it go on afterwards if it is still there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


PAGES = ("/models", "/v1/models", "/props?model=a", "/slots?model=a", "/health")


class TestMonitoring:
    @pytest.fixture
    def server(self, letters: Path) -> Iterator[Served]:
        door = {"prefix": "/llm", "routes": ("inference", "management"), "admin_keys": ("key",)}
        with served(models_dir=letters, spare_worker=False, door=door) as server:
            server.http.headers["Authorization"] = "Bearer key"
            server.http.base_url = httpx.URL(f"{server.url}/llm")
            yield server

    def watch(self, server: Served, wanted: InstanceState) -> None:
        """Ask for all pages, often, from two sides; all answer at once, and "a" stays as it is."""
        longest = []

        def look(offset: int) -> None:
            with client(server.url, headers=server.http.headers) as http:
                began = time.monotonic()
                for number in range(int(WATCH_SECONDS * MONITORS_PER_SECOND / 2)):
                    page = PAGES[(number + offset) % len(PAGES)]
                    time.sleep(
                        max(0.0, began + number * 2 / MONITORS_PER_SECOND - time.monotonic())
                    )
                    asked = time.monotonic()
                    response = http.get(f"/llm{page}")
                    longest.append(time.monotonic() - asked)
                    assert response.status_code == 200, response.text

        with ThreadPoolExecutor(2) as threads:
            list(threads.map(look, (0, 1)))
        assert max(longest) < SLOWEST_SECONDS
        assert sorted(longest)[len(longest) // 2] < SLOWEST_SECONDS / 10
        assert server.view("a").state is wanted

    def test_it_is_answered_at_once_through_a_sleep_and_a_wake(self, server: Served) -> None:
        before = ask(server.http, "a")
        pid = server.worker_pid("a")
        with ThreadPoolExecutor(1) as thread:
            with standing_still(pid):
                asleep = thread.submit(server.http.post, "/models/sleep", json={"model": "a"})
                self.until_state(server, InstanceState.FALLING_ASLEEP)
                self.watch(server, InstanceState.FALLING_ASLEEP)
            assert asleep.result().is_success
            self.until_state(server, InstanceState.SLEEPING)
            self.watch(server, InstanceState.SLEEPING)
            with standing_still(pid):
                answer = thread.submit(ask, server.http, "a")
                self.until_state(server, InstanceState.WAKING)
                self.watch(server, InstanceState.WAKING)
            assert answer.result() == before
        assert server.worker_pid("a") == pid

    def until_state(self, server: Served, wanted: InstanceState) -> None:
        server.until(lambda it: it.view("a").state is wanted, f"that a is {wanted}")


class Killed:
    """A router with one model, whose worker is killed at some time."""

    def __init__(self, router: Router, clock: JumpingClock, expected: str) -> None:
        self.router = router
        self._clock = clock
        self._expected = expected
        self._pid = 0

    async def ask(self) -> None:
        """Ask for an answer, which may be an error but not a wrong one."""
        with suppress(LLMRouterError):
            assert await say(self.router, "a") == self._expected

    async def in_state(
        self, wanted: InstanceState, work: Callable[[], Coroutine[Any, Any, object]], pid: int = 0
    ) -> None:
        """Kill the worker, *pid* if there is one yet, once *work* has brought it to *wanted*."""
        async with anyio.create_task_group() as tasks:
            if pid:
                os.kill(pid, signal.SIGSTOP)
            tasks.start_soon(work)
            await reached(self.router, "a", wanted)
            await until(worker_pids)
            [pid] = worker_pids()
            os.kill(pid, signal.SIGSTOP)
            assert state(self.router, "a") is wanted
            self.kill(pid)

    def _is_known(self) -> bool:
        now = state(self.router, "a")
        tried_again = now is InstanceState.LOADED and pid_of(self.router, "a") != self._pid
        return tried_again or now in (InstanceState.UNLOADED, InstanceState.FAILED)

    def kill(self, pid: int) -> None:
        self._pid = pid
        os.kill(pid, signal.SIGKILL)

    async def check(self) -> None:
        """See that the model works again, and that nothing of the old worker is left."""
        # Who asks before its end was seen is told to ask again.
        await until(self._is_known)
        if state(self.router, "a") is InstanceState.FAILED:
            self._clock.jump(60)  # over its cool-down
        assert await say(self.router, "a") == self._expected
        assert worker_pids() == [pid_of(self.router, "a")]
        await self.router.unload("a")
        await until(lambda: not worker_pids())
        assert not view(self.router, "a").memory.get(HOST)


@pytest.fixture(scope="module")
def slow_to_load(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vocabulary takes part of a second."""
    folder = tmp_path_factory.mktemp("slow")
    return write_tiny_llama(folder / "a.gguf", n_vocab=200_000, n_embd=8, n_head=1, n_layer=1)


@pytest.mark.asyncio
@pytest.mark.parametrize("level", LEVELS)
class TestKilled:
    """Whenever its worker is killed, a model works again and nothing is left of the old one."""

    @asynccontextmanager
    async def loaded(self, model: Path) -> AsyncIterator[Killed]:
        clock = JumpingClock()
        async with real_router(models={"a": model}, clock=clock) as router:
            yield Killed(router, clock, await say(router, "a"))

    async def test_while_it_loads(self, slow_to_load: Path, level: SleepLevel) -> None:
        async with self.loaded(slow_to_load) as killed:
            await killed.router.sleep("a", level=level)
            await killed.router.unload("a")
            await killed.in_state(InstanceState.LOADING, killed.ask)
            await killed.check()

    async def test_while_it_falls_asleep(self, letters: Path, level: SleepLevel) -> None:
        async with self.loaded(letters / "a.gguf") as killed:
            sleep = partial(killed.router.sleep, "a", level=level)
            pid = pid_of(killed.router, "a")
            await killed.in_state(InstanceState.FALLING_ASLEEP, sleep, pid)
            await killed.check()

    async def test_while_it_sleeps(self, letters: Path, level: SleepLevel) -> None:
        async with self.loaded(letters / "a.gguf") as killed:
            sleep = partial(killed.router.sleep, "a", level=level)
            await killed.in_state(InstanceState.SLEEPING, sleep)
            await killed.check()

    async def test_while_it_wakes(self, letters: Path, level: SleepLevel) -> None:
        async with self.loaded(letters / "a.gguf") as killed:
            await killed.router.sleep("a", level=level)
            pid = pid_of(killed.router, "a")
            await killed.in_state(InstanceState.WAKING, killed.ask, pid)
            await killed.check()

    async def test_while_it_answers(self, letters: Path, level: SleepLevel) -> None:
        async with self.loaded(letters / "a.gguf") as killed:
            await killed.router.sleep("a", level=level)
            async with killed.router.acquire("a"):
                killed.kill(pid_of(killed.router, "a"))
                await until(lambda: not worker_pids())
            await killed.check()
