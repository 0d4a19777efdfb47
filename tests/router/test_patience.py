"""Waiting for somebody who may have fallen silent."""

from __future__ import annotations

import time

import anyio
import pytest

from llm_router_mw.router.patience import Patience

pytestmark = pytest.mark.asyncio


async def test_what_happens_in_time_is_seen() -> None:
    patience, event = Patience(30.0), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(event.wait)
        event.set()
        assert await patience.outlasts(event)
    assert await patience.outlasts(event)


async def test_silence_is_borne_as_long_as_agreed() -> None:
    began = time.monotonic()
    assert not await Patience(0.2).outlasts(anyio.Event())
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01])
async def test_very_little_of_it_ends_too(seconds: float) -> None:
    with anyio.fail_after(10.0):
        assert not await Patience(seconds).outlasts(anyio.Event())


async def test_each_sign_of_life_begins_the_time_anew() -> None:
    patience = Patience(0.2)
    began = time.monotonic()
    async with anyio.create_task_group() as tasks:

        async def live() -> None:
            for _ in range(8):
                await anyio.sleep(0.05)
                patience.heard()

        tasks.start_soon(live)
        assert not await patience.outlasts(anyio.Event())
    assert time.monotonic() - began >= 0.4 + 0.2


async def test_a_loop_that_stood_still_itself_does_not_judge() -> None:
    patience, event = Patience(0.2), anyio.Event()

    async def stand_still_and_be_late() -> None:
        time.sleep(0.4)  # noqa: ASYNC251  # twice the limit, in which nobody could be heard
        await anyio.sleep(0.05)
        event.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stand_still_and_be_late)
        assert await patience.outlasts(event)
