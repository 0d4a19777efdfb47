"""The engine of worker processes: the spare one, and that none is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.protocols import MemoryHolder
from llm_router_mw.router import Router
from llm_router_mw.router.client import WorkerClient
from llm_router_mw.router.process import WorkerProcess
from llm_router_mw.router.process_engine import ProcessEngine
from llm_router_mw.types import HOST, InstanceState, LoadOptions
from llm_router_mw.wire import Load
from tests.router.conftest import ScriptedWorkers
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

OBEDIENT = """
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Stop(): sys.exit(0)
"""
ORDER = Load(path="x", options=LoadOptions(), chat_formats={})


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[WorkerProcess]:
    """All worker processes that were started, in their order."""
    processes: list[WorkerProcess] = []
    spawn = WorkerProcess.spawn

    async def noted() -> WorkerProcess:
        processes.append(await spawn())
        return processes[-1]

    monkeypatch.setattr(WorkerProcess, "spawn", noted)
    return processes


@asynccontextmanager
async def running(engine: ProcessEngine) -> AsyncIterator[None]:
    with anyio.fail_after(40):
        async with engine.running():
            yield


async def spare(engine: ProcessEngine) -> WorkerClient:
    """Return the spare worker once there is one."""
    await until(lambda: engine._spare is not None and engine._spare.usable, 30)
    assert engine._spare is not None
    return engine._spare


def is_gone(process: WorkerProcess) -> bool:
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    return False  # pragma: no cover


async def test_the_spare_worker_is_used_and_replaced_beside_the_load(
    scripted: ScriptedWorkers, spawned: list[WorkerProcess]
) -> None:
    scripted(OBEDIENT)
    engine = ProcessEngine(RouterConfig())
    async with running(engine):
        first = await spare(engine)
        client = await engine.create()
        assert client is first
        assert engine._spare is None
        second = await spare(engine)
        assert second is not first
        await engine._make_spare()  # there is one: nothing to do
        assert engine._spare is second
        assert len(spawned) == 2
    assert all(map(is_gone, spawned))


async def test_a_spare_worker_in_the_making_is_waited_for_and_goes_to_one_only(
    scripted: ScriptedWorkers, spawned: list[WorkerProcess]
) -> None:
    scripted(OBEDIENT)
    engine = ProcessEngine(RouterConfig())
    clients: list[WorkerClient] = []

    async def create() -> None:
        clients.append(await engine.create())

    async with running(engine), anyio.create_task_group() as tasks:
        tasks.start_soon(create)
        tasks.start_soon(create)
    assert len({client.pid for client in clients}) == 2
    assert all(map(is_gone, spawned))


async def test_a_spare_worker_that_died_is_not_used(
    scripted: ScriptedWorkers, spawned: list[WorkerProcess]
) -> None:
    scripted(OBEDIENT)
    engine = ProcessEngine(RouterConfig())
    async with running(engine):
        dead = await spare(engine)
        assert dead.pid is not None
        os.kill(dead.pid, signal.SIGKILL)
        await until(lambda: not dead.usable)
        client = await engine.create()
        assert client is not dead
        assert client.usable


async def test_without_a_spare_worker_each_load_starts_its_own(
    scripted: ScriptedWorkers, spawned: list[WorkerProcess]
) -> None:
    scripted(OBEDIENT)
    engine = ProcessEngine(RouterConfig(spare_worker=False))
    async with running(engine):
        await anyio.lowlevel.checkpoint()
        assert spawned == []
        client = await engine.create()
        await client.load(ORDER, lambda value: None)
        assert engine._spare is None
        assert len(spawned) == 1
    assert is_gone(spawned[0])


class Account:
    """What the spare worker is said to hold, and how much room there is."""

    def __init__(self) -> None:
        self.held = -1
        self.free = 1024**3

    def hold(self, bytes_by_pool: Mapping[str, int]) -> None:
        self.held = bytes_by_pool[HOST]

    def room(self, pool: str) -> int:
        return self.free if pool == HOST else 0


async def test_a_spare_worker_is_charged_as_long_as_it_is_spare(scripted: ScriptedWorkers) -> None:
    scripted(OBEDIENT)
    engine, account = ProcessEngine(RouterConfig()), Account()
    assert isinstance(engine, MemoryHolder)
    engine.use_account(account)
    assert account.held == 0
    async with running(engine):
        await spare(engine)
        await until(lambda: account.held > 0)
        assert 1024**2 < account.held < 100 * 1024**2
        account.free = 0
        await engine.create()
        # It is a model's worker from here on, and there is no room for another one.
        assert (account.held, engine._spare) == (0, None)
        await engine._make_spare()
        assert engine._spare is None


async def test_a_spare_worker_goes_when_models_need_its_room(
    scripted: ScriptedWorkers, spawned: list[WorkerProcess]
) -> None:
    scripted(OBEDIENT)
    engine, account = ProcessEngine(RouterConfig()), Account()
    engine.use_account(account)
    async with running(engine):
        await spare(engine)
        await engine.shed(HOST, 1)
        assert is_gone(spawned[0])
        assert account.held == 0
        await engine.shed(HOST, 1)  # there is none
        await engine.create()
        assert len(spawned) == 2


async def test_a_process_that_cannot_be_started_is_an_error_of_the_load(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llm_router_mw.router.process._COMMAND", ("/nowhere/python",))
    engine = ProcessEngine(RouterConfig())
    async with running(engine):
        with pytest.raises(ModelLoadError, match=r"could not be started: .*nowhere"):
            await engine.create()
        await until(lambda: "no spare worker: " in caplog.text)


async def test_an_engine_that_is_not_running_starts_nothing(
    spawned: list[WorkerProcess],
) -> None:
    engine = ProcessEngine(RouterConfig())
    with pytest.raises(ModelLoadError, match="closing"):
        await engine.create()
    assert spawned == []


async def test_a_worker_that_starts_while_the_engine_closes_is_ended_too(
    scripted: ScriptedWorkers, spawned: list[WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted("time.sleep(60)")
    engine = ProcessEngine(RouterConfig())
    spawn = WorkerProcess.spawn
    started = anyio.Event()

    async def slowly() -> WorkerProcess:
        with anyio.CancelScope(shield=True):  # as if the process had just come
            process = await spawn()
            started.set()
            await until(lambda: engine._tasks is None)
        return process

    monkeypatch.setattr(WorkerProcess, "spawn", slowly)
    async with running(engine):
        await started.wait()
    assert all(map(is_gone, spawned))


async def test_leaving_a_router_ends_workers_in_every_phase(
    scripted: ScriptedWorkers, spawned: list[WorkerProcess], tiny_model: Path
) -> None:
    scripted(OBEDIENT.replace("loaded()", "time.sleep(60)"))
    models = {"loading": str(tiny_model), "waiting": str(tiny_model.with_name("none.gguf"))}
    async with Router(models=models, stop_timeout_seconds=0.1) as router:
        await router.load("loading", wait=False)
        await until(lambda: router.models()[0].state is InstanceState.LOADING)
    async with Router(models=models, stop_timeout_seconds=0.1):
        pass  # before the spare worker has even started
    assert all(map(is_gone, spawned))


async def test_a_real_router_serves_survives_a_crash_and_leaves_no_process(
    tiny_model: Path, spawned: list[WorkerProcess]
) -> None:
    async with Router(models={"tiny": str(tiny_model)}, n_threads=1, n_ctx=512) as router:
        async with router.acquire("tiny") as llm:
            reply = await llm.chat([{"role": "user", "content": "hi"}], max_tokens=4)
            assert reply.usage.completion_tokens == 4
        os.kill(spawned[0].pid, signal.SIGKILL)
        await until(lambda: router.models()[0].state is InstanceState.UNLOADED)
        async with router.acquire("tiny") as llm:
            assert (await llm.complete("on", max_tokens=2)).finish_reason == "length"
    assert all(map(is_gone, spawned))
