"""Sleeping and waking through the client: with real workers, and with scripts that misbehave."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from llm_router_mw.errors import (
    AvailabilityError,
    LLMRouterError,
    ModelFileError,
    ModelLoadError,
    WireError,
    WorkerDiedError,
)
from llm_router_mw.types import CompletionTask, Sampling, SleepLevel
from tests.router.clients import (
    CHAT,
    ENDLESS,
    ignore_progress,
    nothing,
    order,
    read,
    start,
    worker,
)
from tests.router.conftest import OPTIONS, ScriptedWorkers
from tests.support.tiny_models import write_tiny_llama

pytestmark = pytest.mark.asyncio

GREEDY = CompletionTask(prompt="the fox", max_tokens=8, sampling=Sampling(temperature=0))
LEVELS: list[SleepLevel] = ["context", "full"]


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """A model that a test may take away."""
    return write_tiny_llama(tmp_path / "own.gguf")


# Real workers


@pytest.mark.parametrize("level", LEVELS)
async def test_a_model_that_has_slept_answers_as_before(
    tiny_model: Path, level: SleepLevel
) -> None:
    async with worker() as made:
        await start(made, tiny_model)
        before, _ = await read(made, GREEDY)
        report = await made.sleep(level)
        assert report.seconds > 0
        progress: list[float] = []
        info = await made.wake(progress.append)
        assert info.n_ctx == OPTIONS.n_ctx
        assert (progress[0], progress[-1]) == (0.0, 1.0)
        assert (await read(made, GREEDY))[0] == before


async def test_sleep_can_be_deepened(tiny_model: Path) -> None:
    async with worker() as made:
        await start(made, tiny_model)
        for level in LEVELS:
            await made.sleep(level)
        await made.wake(ignore_progress)
        assert (await read(made, CHAT))[0]


async def test_a_busy_model_does_not_sleep_and_goes_on(tiny_model: Path) -> None:
    async with worker() as made:
        await start(made, tiny_model)
        stream = made.submit(ENDLESS, nothing)
        await anext(stream)
        with pytest.raises(WireError, match="while 1 requests are under way"):
            await made.sleep("full")
        await anext(stream)
        stream.cancel()
        async for _ in stream:
            pass
        await made.sleep("full")


async def test_a_task_for_a_sleeping_model_is_asked_to_come_again(tiny_model: Path) -> None:
    async with worker() as made:
        await start(made, tiny_model)
        await made.sleep("context")
        with pytest.raises(AvailabilityError, match="has fallen asleep; ask again"):
            await read(made, CHAT)
        await made.wake(ignore_progress)
        assert (await read(made, CHAT))[0]


async def test_a_model_that_is_awake_cannot_be_woken(tiny_model: Path) -> None:
    async with worker() as made:
        await start(made, tiny_model)
        with pytest.raises(WireError, match="not asleep"):
            await made.wake(ignore_progress)
        assert (await read(made, CHAT))[0]


async def test_a_failed_wake_is_an_error_and_can_be_tried_again(own_model: Path) -> None:
    async with worker() as made:
        await start(made, own_model)
        await made.sleep("full")
        hidden = await anyio.Path(own_model).rename(own_model.with_suffix(".hidden"))
        for _ in range(2):
            with pytest.raises(ModelFileError, match="does not exist"):
                await made.wake(ignore_progress)
        with pytest.raises(AvailabilityError):
            await read(made, CHAT)
        await hidden.rename(own_model)
        await made.wake(ignore_progress)
        assert (await read(made, CHAT))[0]


async def test_a_worker_whose_wake_failed_can_be_stopped(own_model: Path) -> None:
    async with worker() as made:
        await start(made, own_model)
        await made.sleep("full")
        await anyio.Path(own_model).write_text("no model any more")
        with pytest.raises(ModelLoadError, match="invalid magic") as caught:
            await made.wake(ignore_progress)
        assert not caught.value.out_of_memory
        await made.stop(20.0)
        assert (await made.wait()).exit_code == 0


async def test_memory_that_cannot_be_had_is_told_apart(tiny_model: Path) -> None:
    # More than there are addresses, so nothing is ever touched.
    greedy = replace(OPTIONS, n_ctx=2**31 - 1, n_parallel=1)
    async with worker() as made:
        await made.greet()
        assert made.pid is not None
        limit_memory(made.pid)
        with pytest.raises(ModelLoadError, match="could not create the context") as caught:
            await made.load(order(tiny_model, greedy), ignore_progress)
        assert caught.value.out_of_memory


def limit_memory(pid: int) -> None:
    """Let process *pid* have a few gigabytes of addresses and no more."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("cannot limit the memory of another process here")
    resource.prlimit(pid, resource.RLIMIT_AS, (4 << 30, 4 << 30))


async def test_a_worker_that_is_stopped_while_it_wakes_ends_politely(tmp_path: Path) -> None:
    slow = write_tiny_llama(tmp_path / "slow.gguf", n_vocab=200_000, n_embd=8, n_head=1, n_layer=1)
    async with worker() as made:
        await start(made, slow)
        await made.sleep("full")
        async with anyio.create_task_group() as tasks:
            begun = anyio.Event()

            async def wake() -> None:
                with pytest.raises(WorkerDiedError):
                    await made.wake(lambda value: begun.set())

            tasks.start_soon(wake)
            await begun.wait()
            await made.stop(20.0)
        assert (await made.wait()).exit_code == 0


@pytest.mark.parametrize("level", LEVELS)
async def test_a_sleeping_worker_that_is_killed_is_seen_and_cannot_be_woken(
    tiny_model: Path, level: SleepLevel
) -> None:
    async with worker() as made:
        await start(made, tiny_model)
        await made.sleep(level)
        assert made.pid is not None
        os.kill(made.pid, signal.SIGKILL)
        assert (await made.wait()).exit_code == -signal.SIGKILL
        with pytest.raises(WorkerDiedError):
            await made.wake(ignore_progress)
        with pytest.raises(WorkerDiedError):
            await made.sleep("full")


# Workers that misbehave

LOADS_THEN = """
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        {}
"""


async def test_the_report_says_what_was_freed(scripted: ScriptedWorkers) -> None:
    scripted(LOADS_THEN.format("case wire.Sleep('context'): send(wire.Slept(0.5, 100, 900))"))
    async with worker() as made:
        await start(made)
        report = await made.sleep("context")
    assert (report.seconds, report.private_bytes, report.freed_bytes) == (0.5, 100, 900)


async def test_a_worker_that_does_not_fall_asleep_is_stuck(scripted: ScriptedWorkers) -> None:
    scripted(LOADS_THEN.format("case wire.Sleep(): time.sleep(60)"))
    async with worker(worker_stall_seconds=0.2) as made:
        await start(made)
        with pytest.raises(WorkerDiedError, match=r"was stuck .*within 0\.2 s\) and was ended"):
            await made.sleep("full")
        report = await made.wait()
    assert report.exit_code == -signal.SIGKILL
    assert "stuck" in report.offence


async def test_a_wake_that_stands_still_is_given_up(scripted: ScriptedWorkers) -> None:
    scripted(LOADS_THEN.format("case wire.Wake(): time.sleep(60)"))
    async with worker(load_stall_seconds=0.2) as made:
        await start(made)
        with pytest.raises(ModelLoadError, match=r"no progress for 0\.2 s"):
            await made.wake(ignore_progress)
        assert (await made.wait()).exit_code == -signal.SIGKILL


DIES_FOR_LACK_OF_MEMORY = {
    "killed by the system": "os.kill(os.getpid(), signal.SIGKILL)",
    "aborted": "os.write(2, b'CUDA error: out of memory\\n'); os.abort()",
    "thrown out": "os.write(2, b\"instance of 'std::bad_alloc'\\n\"); os.abort()",
}


@pytest.mark.parametrize("how", DIES_FOR_LACK_OF_MEMORY)
@pytest.mark.parametrize("what", ["Load", "Wake"])
async def test_a_worker_that_memory_ran_out_for_is_told_apart(
    scripted: ScriptedWorkers, how: str, what: str
) -> None:
    death = DIES_FOR_LACK_OF_MEMORY[how]
    scripted(f"""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.{what}():
            {death}
        case wire.Load(): loaded()
""")
    async with worker() as made:
        await made.greet()
        if what == "Wake":
            await made.load(order("x"), ignore_progress)
            dies = made.wake(ignore_progress)
        else:
            dies = made.load(order("x"), ignore_progress)
        with pytest.raises(ModelLoadError, match="there was not enough memory") as caught:
            await dies
        assert caught.value.out_of_memory


@pytest.mark.parametrize("death", ["os.abort()", "os.kill(os.getpid(), 15)", "sys.exit(3)"])
async def test_any_other_death_in_a_load_is_none_for_lack_of_memory(
    scripted: ScriptedWorkers, death: str
) -> None:
    scripted(f"next(received); greet(); next(received); {death}")
    async with worker() as made:
        await made.greet()
        with pytest.raises(LLMRouterError) as caught:
            await made.load(order("x"), ignore_progress)
        assert isinstance(caught.value, WorkerDiedError)
