"""Work that nobody waits for."""

from __future__ import annotations

import anyio
import pytest

from llm_router_mw.kv_store.jobs import Jobs
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


async def test_jobs_are_done_one_after_the_other_and_one_that_fails_hurts_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobs = Jobs("store")
    done: list[int] = []

    async def fail() -> None:
        raise ZeroDivisionError

    def note(number: int) -> None:
        async def job() -> None:
            await anyio.lowlevel.checkpoint()
            done.append(number)

        jobs.put(job)

    note(1)
    async with jobs.running(5.0):
        await until(lambda: done == [1])
        jobs.put(fail)
        jobs.put(fail)
        note(2)
        await until(lambda: done == [1, 2])
    [message] = caplog.messages  # of the first failure only
    assert "work for 'store' failed: ZeroDivisionError" in message


async def test_what_is_left_over_is_done_at_the_end() -> None:
    jobs = Jobs("store")
    done: list[int] = []

    async def job() -> None:
        await anyio.lowlevel.checkpoint()
        done.append(len(done))

    async with jobs.running(5.0):
        for _ in range(3):
            jobs.put(job)
    assert done == [0, 1, 2]


async def test_the_end_waits_only_so_long() -> None:
    jobs = Jobs("store")
    async with jobs.running(0.01):
        jobs.put(anyio.sleep_forever)
