"""A worker that has requests and says nothing is ended; one that only takes its time is not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio
import pytest

from llm_router_mw.errors import WorkerDiedError
from llm_router_mw.router.client import WorkerClient
from llm_router_mw.types import ContentDelta, FinishDelta
from llm_router_mw.wire import INITIAL_CREDIT
from tests.router.clients import CHAT, ENDLESS, nothing, read, start, worker
from tests.router.conftest import ScriptedWorkers

pytestmark = pytest.mark.asyncio

LIMIT_SECONDS = 2.0
"""More than a real worker lets pass between two signs of life."""


def freeze(made: WorkerClient) -> None:
    """Stop the process, so that it neither works nor ends."""
    assert made.pid is not None
    os.kill(made.pid, signal.SIGSTOP)


# Real workers


async def test_a_worker_that_freezes_at_work_is_ended_and_its_requests_fail(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(worker_stall_seconds=0.5) as made:
        await start(made, tiny_model)
        over: list[str] = []
        streams = [made.submit(ENDLESS, lambda: over.append("over")) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        freeze(made)
        for stream in streams:
            with pytest.raises(WorkerDiedError, match=r"was stuck .* 0\.5 s\) and was ended") as e:
                async for _ in stream:
                    pass
            assert e.value.status == 502
        assert over == ["over", "over"]
        report = await made.wait()
        assert report.exit_code == -signal.SIGKILL
        assert report.offence == "was stuck (it gave no sign of life for 0.5 s)"
    assert "was stuck" in caplog.text


async def test_a_worker_that_has_nothing_to_do_may_be_silent(tiny_model: Path) -> None:
    async with worker(worker_stall_seconds=0.2) as made:
        await start(made, tiny_model)
        await anyio.sleep(0.5)
        assert (await read(made, CHAT))[1].reason == "length"


async def test_a_reader_that_pauses_does_not_make_the_worker_look_stuck(tiny_model: Path) -> None:
    async with worker(worker_stall_seconds=LIMIT_SECONDS) as made:
        await start(made, tiny_model)
        stream = made.submit(ENDLESS, nothing)
        await anext(stream)
        # Its credit is used up at once; from then on the engine has a request and no work.
        await anyio.sleep(1.5 * LIMIT_SECONDS)
        for _ in range(2 * INITIAL_CREDIT):
            assert isinstance(await anext(stream), ContentDelta)
        stream.cancel()
        *_, last = [delta async for delta in stream]
        assert isinstance(last, FinishDelta)


# Scripts

SILENT = """
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Submit(id): {}
"""


async def test_signs_of_life_are_enough(scripted: ScriptedWorkers) -> None:
    scripted(
        SILENT.format("""
            for _ in range(12):
                time.sleep(0.05)
                send(wire.Alive())
            send(wire.Step([(id, FinishDelta("stop", Usage()))]))
""")
    )
    async with worker(worker_stall_seconds=0.3) as made:
        await start(made)
        assert (await read(made, CHAT))[1].reason == "stop"


async def test_the_time_before_a_request_does_not_count(scripted: ScriptedWorkers) -> None:
    scripted(
        SILENT.format("""
            time.sleep(0.1)
            send(wire.Step([(id, FinishDelta("stop", Usage()))]))
""")
    )
    async with worker(worker_stall_seconds=0.4) as made:
        await start(made)
        for _ in range(3):
            await anyio.sleep(0.35)
            assert (await read(made, CHAT))[1].reason == "stop"


async def test_a_host_that_was_busy_itself_does_not_judge(scripted: ScriptedWorkers) -> None:
    scripted(
        SILENT.format("""
            for _ in range(5):
                send(wire.Alive())
                time.sleep(0.1)
            send(wire.Step([(id, FinishDelta("stop", Usage()))]))
""")
    )
    async with worker(worker_stall_seconds=0.3) as made:
        await start(made)
        stream = made.submit(CHAT, nothing)
        await anyio.sleep(0.05)
        time.sleep(1.0)  # noqa: ASYNC251  # the host app blocks the loop for longer than the limit
        assert isinstance(await anext(stream), FinishDelta)
        assert made.usable


async def test_a_host_that_was_busy_itself_lets_a_worker_greet(
    scripted: ScriptedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_router_mw.router.client._START_SECONDS", 0.4)
    scripted("time.sleep(0.8); [greet() for message in received]")
    async with worker() as made:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.greet)
            await anyio.sleep(0.05)
            time.sleep(1.0)  # noqa: ASYNC251
        assert made.usable


async def test_a_host_that_was_busy_itself_lets_a_worker_end(scripted: ScriptedWorkers) -> None:
    scripted("""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Stop():
            time.sleep(0.8)
            sys.exit(0)
""")
    async with worker() as made:
        await start(made)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.stop, 0.5)
            await anyio.sleep(0.05)
            time.sleep(0.6)  # noqa: ASYNC251
        assert (await made.wait()).exit_code == 0
