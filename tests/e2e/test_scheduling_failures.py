"""What cannot be served, and what fails, with real workers: refusals, cool-downs, second tries."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ModelCoolingDownError, ModelLoadError, WorkerDiedError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import EngineFactory
from llm_router_mw.router.client import WorkerClient
from llm_router_mw.router.process_engine import ProcessEngine
from llm_router_mw.types import ChatTask, InstanceState
from tests.support.answers import ask, chat_body
from tests.support.real_router import (
    HELLO,
    JumpingClock,
    Story,
    pid_of,
    reached,
    real_router,
    say,
    state,
    talk,
    view,
    waits,
)
from tests.support.served import served


def test_a_pinned_model_stays_and_the_other_is_asked_to_come_again(letters: Path) -> None:
    models = {
        "pinned": {"path": letters / "a.gguf", "pinned": True},
        "other": letters / "b.gguf",
    }
    with served(models=models, models_max=1, queue_timeout_seconds=0.3) as server:
        ask(server.http, "pinned", max_tokens=2)
        pid = server.worker_pid("pinned")
        for stream in (False, True):
            body = chat_body("other", stream=stream)
            refused = server.http.post("/v1/chat/completions", json=body)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert refused.headers["X-LLM-Router-Queue-Position"] == "1"
            assert int(refused.headers["X-LLM-Router-Expected-Wait"]) > 0
            assert float(refused.headers["X-LLM-Router-Waited"]) > 0.2
            assert "pinned" in refused.json()["error"]["message"]
        assert server.view("other").status == "unloaded"
        assert server.worker_pid("pinned") == pid


@pytest.mark.asyncio
async def test_a_model_that_cannot_be_loaded_cools_down(letters: Path, tmp_path: Path) -> None:
    story, clock = Story(), JumpingClock()
    good = (letters / "a.gguf").read_bytes()
    alien = tmp_path / "alien.gguf"
    alien.write_bytes(good.replace(b"llama", b"alien"))
    async with real_router(story, models={"alien": alien}, clock=clock) as router:
        with pytest.raises(ModelLoadError, match="alien"):
            await say(router, "alien")
        for pause in (10, 20):
            # Refused without a try, until the pause is over.
            with pytest.raises(ModelCoolingDownError) as caught:
                await say(router, "alien")
            left = caught.value.retry_after_seconds
            assert left is not None
            assert pause / 2 < left <= pause
            await reached(router, "alien", InstanceState.FAILED)
            tries = story.loads()
            clock.jump(pause)
            with pytest.raises(ModelLoadError, match="alien"):
                await say(router, "alien")
            assert story.loads() == tries + 1
        # Asked for by hand it is tried at once, and success ends it all.
        alien.write_bytes(good)
        await router.load("alien")
        assert await say(router, "alien")
        assert view(router, "alien").error is None


@pytest.mark.asyncio
async def test_a_stuck_worker_is_ended_and_makes_room(letters: Path) -> None:
    story = Story()
    async with real_router(
        story, models_dir=letters, models_max=1, worker_stall_seconds=2.0
    ) as router:
        async with anyio.create_task_group() as tasks, router.acquire("a") as lease:
            stream = lease.stream(ChatTask(messages=tuple(HELLO), max_tokens=400))
            await anext(stream)
            tasks.start_soon(say, router, "b")
            await waits(router, "b")
            os.kill(pid_of(router, "a"), signal.SIGSTOP)
            with pytest.raises(WorkerDiedError, match="stuck"):
                async for _ in stream:
                    pass
        assert state(router, "b") is InstanceState.LOADED
        assert any(each.kind == "worker_died" and each.model == "a" for each in story.events)
        # That is no failure to load: it comes back as soon as it is asked for.
        assert await say(router, "a")


@pytest.mark.asyncio
async def test_who_asks_again_right_after_a_crash_is_served(letters: Path) -> None:
    story = Story()
    async with real_router(story, models_dir=letters) as router:
        async with router.acquire("a") as lease:
            stream = lease.stream(ChatTask(messages=tuple(HELLO), max_tokens=400))
            await anext(stream)
            os.kill(pid_of(router, "a"), signal.SIGKILL)
            with pytest.raises(WorkerDiedError, match="SIGKILL"):
                async for _ in stream:
                    pass
            assert await say(router, "a")
        assert story.loads("a") == 2


class ScarceMemory(ProcessEngine):
    """The real engine, on a machine where some workers may have next to no memory."""

    name = "scarce"

    def __init__(self, config: RouterConfig, is_short: Callable[[int], bool]) -> None:
        super().__init__(config)
        self._is_short = is_short
        self.workers = 0

    async def create(self) -> WorkerClient:
        client = await super().create()
        self.workers += 1
        if self._is_short(self.workers):
            assert client.pid is not None
            leave_no_room(client.pid)
        return client


def leave_no_room(pid: int) -> None:
    """Let the process have a few more pages than it has, and no more."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("cannot limit the memory of another process here")
    has = next(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmSize:")
    )
    # Enough for llama.cpp's libraries and the model, too little for a context.
    limit = has + (256 << 20)
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))


class Scarcity:
    """Brings the engine ``scarce``."""

    __name__ = "scarcity"

    def __init__(self, is_short: Callable[[int], bool]) -> None:
        self._is_short = is_short
        self.engine: ScarceMemory | None = None

    @hookimpl
    def llm_router_register_engines(self, config: RouterConfig) -> list[EngineFactory]:
        self.engine = ScarceMemory(config, self._is_short)
        return [self.engine]


@pytest.fixture
def models(letters: Path) -> dict[str, object]:
    """A small model, and one whose cache alone takes more than a worker is left."""
    large = {"path": letters / "a.gguf", "n_ctx": 2**20, "n_ubatch": 32}
    return {"a": large, "b": letters / "b.gguf"}


@pytest.mark.asyncio
async def test_a_load_that_runs_out_of_memory_is_tried_once_more(
    models: dict[str, object],
) -> None:
    story = Story()
    scarcity = Scarcity(lambda worker: worker == 1)
    async with real_router(story, scarcity, engine="scarce", models=models) as router:
        assert await say(router, "a")
        assert "tried once more" in story.why("a", InstanceState.STOPPING)
        assert story.loads("a") == 2
        assert view(router, "a").error is None


@pytest.mark.asyncio
async def test_the_second_lack_of_memory_is_the_clients_to_know(
    models: dict[str, object],
) -> None:
    story = Story()
    scarcity = Scarcity(lambda worker: worker > 1)
    async with (
        real_router(story, scarcity, engine="scarce", models=models) as router,
        router.acquire("b") as lease,
    ):
        with pytest.raises(ModelLoadError) as caught:
            await say(router, "a")
        assert caught.value.out_of_memory
        with pytest.raises(ModelCoolingDownError):
            await say(router, "a")
        assert story.loads("a") == 2
        assert await talk(lease)
