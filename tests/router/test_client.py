"""The router's end of the pipe, against real workers, and against scripts that misbehave."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from llm_router_mw.errors import (
    ClientStalledError,
    InvalidRequestError,
    LLMRouterError,
    ModelLoadError,
    NotSupportedError,
    WorkerDiedError,
)
from llm_router_mw.router import client as client_module
from llm_router_mw.router.process import WorkerProcess
from llm_router_mw.testing.gguf import small_model
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    EmbedTask,
    FinishDelta,
    Task,
)
from llm_router_mw.wire import INITIAL_CREDIT
from tests.router.clients import CHAT, ENDLESS, ignore_progress, nothing, order, read, start, worker
from tests.router.conftest import OPTIONS, ScriptedWorkers
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio


# Real workers


async def test_a_worker_greets_loads_answers_refuses_and_stops(tiny_model: Path) -> None:
    async with worker() as made:
        await made.greet()
        assert made.pid is not None
        assert made.usable
        progress: list[float] = []
        info = await made.load(order(tiny_model), progress.append)
        assert info.n_ctx == OPTIONS.n_ctx
        assert progress == sorted(progress)
        assert (progress[0], progress[-1]) == (0.0, 1.0)

        text, finish = await read(made, CHAT)
        assert text
        assert (finish.reason, finish.usage.completion_tokens) == ("length", 5)

        with pytest.raises(NotSupportedError, match="embed"):
            await read(made, EmbedTask(inputs=("x",)))

        finished: list[str] = []
        stream = made.submit(ENDLESS, lambda: finished.append("endless"))
        await anext(stream)
        stream.cancel()
        *_, last = [delta async for delta in stream]
        assert isinstance(last, FinishDelta)
        assert last.reason == "cancelled"
        assert finished == ["endless"]

        await made.stop(10.0)
        assert (await made.wait()).exit_code == 0
        assert not made.usable


@pytest.mark.parametrize(
    "task",
    [
        ChatTask(messages=({"role": "user", "content": object()},)),
        ChatTask(messages=({"role": "user", "content": 2**70},)),
        ChatTask(messages=({"role": "user", "content": "\ud800"},)),
        CompletionTask(prompt=5),  # type: ignore[arg-type]
        EmbedTask(inputs=(None,)),  # type: ignore[arg-type]
    ],
)
async def test_a_task_that_cannot_cross_the_pipe_is_refused_and_hurts_nobody(
    scripted: ScriptedWorkers, task: Task
) -> None:
    scripted("""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Submit(id): send(wire.Step([(id, FinishDelta("stop", Usage()))]))
""")
    async with worker() as made:
        await start(made)
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            made.submit(task, nothing)
        assert (await read(made, CHAT))[1].reason == "stop"


async def test_a_file_that_llama_cpp_refuses_is_told_and_the_worker_ends(tmp_path: Path) -> None:
    path = small_model().write(tmp_path / "no_weights.gguf")
    async with worker() as made:
        await made.greet()
        with pytest.raises(ModelLoadError, match=r"no_weights\.gguf"):
            await made.load(order(path), ignore_progress)
        assert not made.usable
        assert (await made.wait()).exit_code == 1


async def test_a_kill_in_mid_stream_is_told_to_every_stream(tiny_model: Path) -> None:
    async with worker() as made:
        await made.greet()
        await made.load(order(tiny_model), ignore_progress)
        finished: list[int] = []
        streams = [made.submit(ENDLESS, lambda: finished.append(1)) for _ in range(2)]
        for stream in streams:
            await anext(stream)
        assert made.pid is not None
        os.kill(made.pid, signal.SIGKILL)
        for stream in streams:
            with pytest.raises(WorkerDiedError, match="ended by signal SIGKILL"):
                async for _ in stream:
                    pass
        assert finished == [1, 1]
        assert (await made.wait()).exit_code == -signal.SIGKILL
        late = made.submit(CHAT, lambda: finished.append(2))
        with pytest.raises(WorkerDiedError):
            await anext(late)
        assert finished == [1, 1, 2]
        late.cancel()  # harmless: there is nobody to tell
        await made.stop(1.0)


async def test_a_worker_can_be_killed_in_the_middle_of_a_load(tiny_model: Path) -> None:
    async with worker() as made:
        await made.greet()
        loads: list[float] = []
        async with anyio.create_task_group() as tasks:

            async def load() -> None:
                with pytest.raises(WorkerDiedError):
                    await made.load(order(tiny_model), loads.append)

            tasks.start_soon(load)
            await until(lambda: loads)
            made.kill()
    assert (await made.wait()).exit_code == -signal.SIGKILL


# Workers that misbehave


STREAMS_ALL_THE_TIME = """
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Submit(id, credit=credit):
            send(wire.Step([(id, ContentDelta("x"))] * credit))
"""


async def test_a_worker_that_never_answers_hello_is_given_up(
    scripted: ScriptedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_START_SECONDS", 0.05)
    scripted("time.sleep(60)")
    async with worker() as made:
        with pytest.raises(ModelLoadError, match="did not start within"):
            await made.greet()
        assert (await made.wait()).exit_code == -signal.SIGKILL


async def test_a_worker_that_ends_before_hello_is_told_and_only_the_log_has_its_last_line(
    scripted: ScriptedWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    scripted("sys.exit('no such library')")
    async with worker() as made:
        with pytest.raises(ModelLoadError, match=r"could not start: .* exited with code 1;") as e:
            await made.greet()
    assert "no such library" not in e.value.message
    assert "its last line: no such library" in caplog.text


async def test_a_worker_of_another_version_is_refused(scripted: ScriptedWorkers) -> None:
    scripted("""
from llm_router_mw.errors import WireError
next(received)
send(wire.LoadFailed(WireError("another protocol").to_failure()))
""")
    async with worker() as made:
        with pytest.raises(ModelLoadError, match="another protocol"):
            await made.greet()


async def test_rubbish_on_the_channel_ends_the_worker_and_says_so(
    scripted: ScriptedWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    scripted("""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Submit(): os.write(1, b"\\xff" * 100)
""")
    async with worker() as made:
        await start(made)
        stream = made.submit(CHAT, nothing)
        with pytest.raises(WorkerDiedError, match=r"broke the protocol \(a frame announces"):
            await anext(stream)
        assert not made.usable
    assert "broke the protocol" in caplog.text


@pytest.mark.parametrize("descriptor", [0, 1])
async def test_a_worker_that_hangs_up_but_stays_is_ended(
    scripted: ScriptedWorkers, monkeypatch: pytest.MonkeyPatch, descriptor: int
) -> None:
    monkeypatch.setattr(client_module, "_FAREWELL_SECONDS", 0.05)
    scripted(f"""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Submit(id):
            send(wire.Step([(id, ContentDelta("bye"))]))
            os.close({descriptor})
            time.sleep(60)
""")
    async with worker() as made:
        await start(made)
        stream = made.submit(CHAT, nothing)
        assert await anext(stream) == ContentDelta("bye")
        # Whatever is sent now gets lost; at some point that is noticed.
        await until(lambda: made.submit(CHAT, nothing).finished)
        with pytest.raises(WorkerDiedError, match="closed its channel and was ended"):
            await anext(stream)


async def test_a_pipe_that_breaks_with_its_process_is_told_as_the_end_of_that(
    scripted: ScriptedWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted("""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Submit(): sys.exit(7)
""")
    receive = WorkerProcess.receive

    async def broken(self: WorkerProcess) -> AsyncIterator[bytes]:
        async for data in receive(self):
            yield data
        raise ConnectionResetError

    monkeypatch.setattr(WorkerProcess, "receive", broken)
    async with worker() as made:
        await start(made)
        with pytest.raises(WorkerDiedError, match="exited with code 7"):
            await anext(made.submit(CHAT, nothing))


async def test_a_load_that_stands_still_is_given_up(scripted: ScriptedWorkers) -> None:
    scripted("""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load():
            for number in range(5):
                time.sleep(0.1)
                send(wire.Progress(number / 10))
""")
    progress: list[float] = []
    async with worker(load_stall_seconds=0.4) as made:
        await made.greet()
        with pytest.raises(ModelLoadError, match=r"no progress for 0\.4 s"):
            await made.load(order("x"), progress.append)
        assert progress == [0.0, 0.1, 0.2, 0.3, 0.4]  # longer than the limit, all in all
        assert (await made.wait()).exit_code == -signal.SIGKILL


async def test_trouble_with_one_worker_is_its_own(
    scripted: ScriptedWorkers, caplog: pytest.LogCaptureFixture
) -> None:
    scripted("""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): send(wire.Progress(0.5))
""")

    def fail(value: float) -> None:
        raise ValueError("a bug in a callback")

    async with worker() as made:
        await made.greet()
        with pytest.raises(WorkerDiedError, match="was ended"):
            await made.load(order("x"), fail)
    assert "a bug in a callback" in caplog.text


async def test_what_a_worker_said_before_its_end_is_read(scripted: ScriptedWorkers) -> None:
    scripted("""
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Load(): loaded()
        case wire.Submit(id):
            send(wire.Step([(99, ContentDelta("to nobody")), (id, ContentDelta("last words"))]))
            sys.exit(7)
""")
    async with worker() as made:
        await start(made)
        stream = made.submit(CHAT, nothing)
        assert await anext(stream) == ContentDelta("last words")
        with pytest.raises(WorkerDiedError, match="exited with code 7"):
            await anext(stream)


async def test_a_reader_that_stalls_is_cancelled_alone(scripted: ScriptedWorkers) -> None:
    scripted(STREAMS_ALL_THE_TIME)
    async with worker(stall_seconds=0.05) as made:
        await start(made)
        finished: list[str] = []
        stalled = made.submit(ENDLESS, lambda: finished.append("stalled"))
        await until(lambda: finished == ["stalled"])
        for _ in range(INITIAL_CREDIT):
            await anext(stalled)
        with pytest.raises(ClientStalledError):
            await anext(stalled)
        assert isinstance(await anext(made.submit(ENDLESS, nothing)), ContentDelta)


async def test_a_worker_that_reads_nothing_holds_up_neither_us_nor_its_own_end(
    scripted: ScriptedWorkers,
) -> None:
    scripted("""
next(received)
greet()
next(received)
loaded()
time.sleep(60)
""")
    long_prompt = CompletionTask(prompt="x" * 1_000_000)
    async with worker() as made:
        await start(made)
        streams = [made.submit(long_prompt, nothing) for _ in range(5)]
        await made.stop(0.05)
        for stream in streams:
            # Whichever comes first where the machine is busy.
            with pytest.raises(LLMRouterError, match=r"SIGTERM|SIGKILL"):
                await anext(stream)


# The ladder: polite, then terminate, then kill

LADDER: dict[str, tuple[str, int]] = {
    "polite": ("", 0),
    "terminate": ("signal.signal(signal.SIGUSR1, signal.SIG_IGN)", -signal.SIGTERM),
    "kill": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", -signal.SIGKILL),
}


@pytest.mark.parametrize("rung", LADDER)
async def test_stopping_climbs_only_as_far_as_it_must(scripted: ScriptedWorkers, rung: str) -> None:
    prepares, exit_code = LADDER[rung]
    scripted(f"""
{prepares}
for message in received:
    match message:
        case wire.Hello(): greet()
        case wire.Stop() if {rung == "polite"}: sys.exit(0)
time.sleep(60)
""")
    async with worker() as made:
        await made.greet()
        await made.stop(20.0 if rung == "polite" else 0.1)
        assert (await made.wait()).exit_code == exit_code
        with pytest.raises(WorkerDiedError):
            await made.load(order("x"), ignore_progress)


async def test_stopping_is_not_cut_short_by_a_cancelling(scripted: ScriptedWorkers) -> None:
    scripted(LADDER["kill"][0] + "\nnext(received)\ngreet()\ntime.sleep(60)")
    async with worker() as made:
        await made.greet()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await made.stop(0.05)
        assert made._gone.is_set()
