"""Workers: made when their room is there, and not at all if nobody wants them any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.abc
import pytest

from llm_router_mw.faults import Faults
from llm_router_mw.memory.machine_lock import Hold
from llm_router_mw.router.gate import Gate
from llm_router_mw.router.sleep_handlers import SleepHandlers
from llm_router_mw.router.workers import Worker, Workers
from llm_router_mw.scheduler import events
from llm_router_mw.testing import FakePlugin, FakeSource
from llm_router_mw.types import InstanceKey, Placement, Price
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

PRICE = Price(placement=Placement(), bytes_by_pool={"host": 1})


class ClosedGate:
    """A gate that lets nobody pass until it is opened, and nobody at all if it has no room."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = anyio.Event()

    async def admit(self, price: Price, held: Mapping[str, int] = {}) -> Hold | None:
        self.asked += 1
        await self.open.wait()
        return None


class Stage:
    """Workers of one model, behind a gate that is closed."""

    def __init__(self, folder: Path, tasks: anyio.abc.TaskGroup) -> None:
        self.engine = FakePlugin(folder).engine
        [model] = FakeSource(folder, ("a",), {}).models()
        self.key = model.instance_key
        self.gate = ClosedGate()
        self.faults = Faults()
        self.told: list[events.Event] = []
        handlers = SleepHandlers(
            (),
            tasks,
            self.faults,
            lambda key, reason: None,
            models=lambda key: (),
            hurried=lambda: False,
            timeout_seconds=1.0,
            closing_seconds=1.0,
        )
        self.workers = Workers(
            self.engine,
            tasks,
            self.told.append,
            lambda key, progress: None,
            clock=lambda: 0.0,
            chat_formats={},
            devices=lambda: (),
            gate=cast("Gate", self.gate),
            on_loaded=_nothing,
            handlers=handlers,
            identify=_nobody,
            faults=self.faults,
            stop_timeout_seconds=1.0,
        )

    async def at_the_gate(self) -> None:
        """Begin with a load, which then waits."""
        self.workers.start(self.key, 1, PRICE)
        await until(lambda: self.gate.asked == 1)


async def _nothing(key: InstanceKey, worker: Worker) -> None:
    pass


async def _nobody(key: InstanceKey, price: Price | None) -> str:
    return ""


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            stage = Stage(folder, tasks)
            yield stage
            await stage.workers.all_exited()
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("end", [Workers.stop, Workers.kill])
async def test_a_load_that_is_stopped_at_the_gate_makes_no_worker(
    end: Callable[[Workers, InstanceKey, int], None], tmp_path: Path
) -> None:
    async with staged(tmp_path) as stage:
        await stage.at_the_gate()
        end(stage.workers, stage.key, 1)
        await until(lambda: stage.told)
        assert stage.told == [
            events.WorkerExited(instance=stage.key, generation=1, reason="its worker has stopped")
        ]
        assert stage.engine.instances == []
        assert stage.workers.get(stage.key) is None


async def test_a_load_whose_room_is_gone_is_put_off(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.at_the_gate()
        stage.gate.open.set()
        await until(lambda: stage.told)
        assert [type(each) for each in stage.told] == [events.Deferred]
        assert stage.engine.instances == []


async def test_what_the_engine_does_wrong_is_counted(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.engine.broken_create = ValueError("a bug")
        for generation in (1, 2):
            stage.workers.start(stage.key, generation, None)
            await until(lambda: stage.workers.get(stage.key) is None)
        stage.engine.broken_create = None
        stage.workers.start(stage.key, 3, None)
        await until(lambda: isinstance(stage.told[-1], events.Loaded))
        [instance] = stage.engine.instances
        fail: Any = _fail
        instance.kill = fail  # type: ignore[method-assign]
        stage.workers.kill(stage.key, 3)
        instance.gone.set()
    assert stage.faults.counts == {"engine 'fake'": 3}


def _fail() -> None:
    raise ValueError("another bug")
