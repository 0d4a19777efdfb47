"""What a worker was told to do, and what came of it."""

from __future__ import annotations

import anyio
import pytest

from llm_router_mw.errors import ModelLoadError, WorkerDiedError
from llm_router_mw.router.order import Order
from llm_router_mw.wire import Slept

pytestmark = pytest.mark.asyncio

SLEPT = Slept(0.5, 100, 900)


async def test_the_answer_is_what_the_worker_said() -> None:
    order: Order[Slept] = Order(30.0)
    order.succeed(SLEPT)
    assert await order.outcome() == SLEPT


async def test_a_failure_is_raised() -> None:
    order: Order[Slept] = Order(30.0)
    order.fail(ModelLoadError("no"))
    with pytest.raises(ModelLoadError, match="no"):
        await order.outcome()


async def test_what_was_done_stays_done_when_the_worker_ends() -> None:
    order: Order[Slept] = Order(30.0)
    order.succeed(SLEPT)
    order.fail(WorkerDiedError("gone"))
    assert await order.outcome() == SLEPT


async def test_silence_is_told_apart_and_put_off_by_signs_of_life() -> None:
    order: Order[Slept] = Order(0.2)
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:

        async def live() -> None:
            await anyio.sleep(0.15)
            order.heard()

        tasks.start_soon(live)
        with pytest.raises(TimeoutError):
            await order.outcome()
    assert anyio.current_time() - began >= 0.15 + 0.2
