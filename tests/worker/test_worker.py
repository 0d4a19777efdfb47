"""What a worker process says and does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_router_mw
from llm_router_mw import wire
from llm_router_mw.types import (
    ChatTask,
    CompletionTask,
    ContentDelta,
    FailureDelta,
    FinishDelta,
    LoadOptions,
    Sampling,
)
from llm_router_mw.worker.inbox import ORPHANED
from tests.worker.process import (
    CHAT_FORMATS,
    COMMAND,
    ENDLESS_TASK,
    LONG_CONTEXT,
    WorkerProcess,
    wait_until_gone,
)

NOISY = {"template": "tests.worker.formats:NoisyFormat"}
CURIOUS = {"template": "tests.worker.formats:CuriousFormat"}


def short(max_tokens: int, prompt: str = "the fox") -> CompletionTask:
    return CompletionTask(prompt=prompt, max_tokens=max_tokens, sampling=Sampling(temperature=0))


class TestHandshake:
    def test_hello_is_answered_with_version_and_pid(self, worker: WorkerProcess) -> None:
        worker.send(wire.Hello(wire.PROTOCOL, "0"))
        ready = worker.expect(wire.Ready)
        assert ready == wire.Ready(wire.PROTOCOL, llm_router_mw.__version__, worker.process.pid)

    def test_another_protocol_is_refused_naming_both_versions(self, worker: WorkerProcess) -> None:
        worker.send(wire.Hello(wire.PROTOCOL + 1, "99.9"))
        failure = worker.expect(wire.LoadFailed).failure
        assert failure.kind == "WireError"
        assert f"protocol {wire.PROTOCOL + 1} (version 99.9)" in failure.message
        assert f"{wire.PROTOCOL} (version {llm_router_mw.__version__})" in failure.message
        assert worker.exit_code() == 1

    def test_anything_but_hello_is_refused(self, worker: WorkerProcess) -> None:
        worker.send(wire.Cancel(1))
        assert "expected hello" in worker.expect(wire.LoadFailed).failure.message
        assert worker.exit_code() == 1

    def test_anything_but_load_is_refused_then(self, worker: WorkerProcess) -> None:
        worker.hello()
        worker.send(wire.Cancel(1))
        assert "expected load" in worker.expect(wire.LoadFailed).failure.message
        assert worker.exit_code() == 1

    def test_garbage_ends_it(self, worker: WorkerProcess) -> None:
        worker.stdin.write(b"GET / HTTP/1.1\r\n\r\n")
        worker.stdin.flush()
        assert worker.exit_code() == ORPHANED
        assert "the channel to the router is broken" in worker.log


class TestLoad:
    def test_it_tells_its_progress_and_then_the_facts(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.hello()
        worker.send(wire.Load(str(endless), LoadOptions(n_ctx=256, n_threads=1), CHAT_FORMATS))
        messages = []
        while not isinstance(message := worker.receive(), wire.Loaded):
            assert isinstance(message, wire.Progress)
            messages.append(message.value)
        assert messages == sorted(messages)
        assert (messages[0], messages[-1]) == (0.0, 1.0)
        # llama.cpp reports each of 21 tensors, all within less than 50 ms.
        assert len(messages) < 10
        assert message.info.n_ctx == 256

    def test_a_file_that_llama_cpp_refuses_fails_in_its_words(
        self, worker: WorkerProcess, tmp_path: Path
    ) -> None:
        path = tmp_path / "text.gguf"
        path.write_text("once upon a time")
        worker.begin_load(path)
        failure = worker.expect(wire.LoadFailed).failure
        assert failure.kind == "ModelLoadError"
        assert "invalid magic" in failure.message
        assert worker.exit_code() == 1
        assert "invalid magic" in worker.log

    def test_a_missing_file_is_told_apart(self, worker: WorkerProcess, tmp_path: Path) -> None:
        worker.begin_load(tmp_path / "gone.gguf")
        assert worker.expect(wire.LoadFailed).failure.kind == "ModelFileError"
        assert worker.exit_code() == 1


class TestTasks:
    def test_a_chat_is_answered(self, worker: WorkerProcess, endless: Path) -> None:
        worker.load(endless)
        task = ChatTask(messages=({"role": "user", "content": "hi"},), max_tokens=3)
        *content, finish = worker.answer(1, task)
        assert len(content) == 3
        assert all(isinstance(delta, ContentDelta) and delta.text for delta in content)
        assert isinstance(finish, FinishDelta)
        assert finish.usage.completion_tokens == 3

    def test_a_step_is_one_frame_for_all_requests(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless)
        worker.send(*(wire.Submit(number, short(20)) for number in range(4)))
        worker.send(wire.Submit(4, short(30)))
        seen: set[int] = set()
        sizes = []
        while 4 not in seen:
            step = worker.expect(wire.Step)
            sizes.append(len(step.deltas))
            seen |= {number for number, delta in step.deltas if isinstance(delta, FinishDelta)}
        assert seen == {0, 1, 2, 3, 4}
        assert max(sizes) >= 4

    def test_credit_is_obeyed(self, worker: WorkerProcess, endless: Path) -> None:
        worker.load(endless)
        worker.send(wire.Submit(1, short(20), credit=3))
        assert len(worker.deltas(1, 3)) == 3
        # The other one runs to its end meanwhile, so the first has stopped for good.
        assert all(isinstance(delta, ContentDelta) for delta in worker.answer(2, short(9))[:-1])
        worker.send(wire.Credit(1, 5))
        assert len(worker.deltas(1, 5)) == 5
        worker.send(wire.Credit(1, 100))
        assert isinstance(worker.deltas(1, 13)[-1], FinishDelta)

    def test_cancel_is_obeyed(self, worker: WorkerProcess, endless: Path) -> None:
        worker.load(endless)
        worker.send(wire.Submit(1, ENDLESS_TASK, credit=3))
        worker.deltas(1, 3)
        worker.send(wire.Cancel(1))
        (finish,) = worker.deltas(1, 1)
        assert isinstance(finish, FinishDelta)
        assert finish.reason == "cancelled"

    def test_a_bad_request_fails_alone(self, worker: WorkerProcess, endless: Path) -> None:
        worker.load(endless)
        (failed,) = worker.answer(1, short(3, prompt="x" * 1000))
        assert isinstance(failed, FailureDelta)
        assert failed.failure.kind == "ContextExceededError"
        assert isinstance(worker.answer(2, short(3))[-1], FinishDelta)

    @pytest.mark.parametrize(
        "message", [wire.Hello(wire.PROTOCOL, "0"), wire.Submit(1, ENDLESS_TASK)]
    )
    def test_a_message_out_of_place_ends_it(
        self, worker: WorkerProcess, endless: Path, message: wire.ToWorker
    ) -> None:
        worker.load(endless)
        worker.send(wire.Submit(1, ENDLESS_TASK, credit=1), message)
        assert worker.exit_code() == 1
        assert "WireError" in worker.log


class TestIsolation:
    def test_what_native_code_prints_goes_to_the_log(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless, NOISY)
        assert isinstance(worker.answer(1, short(3))[-1], FinishDelta)
        for line in ("printed by Python", "written to descriptor 1", "printed by C"):
            assert line in worker.log
        assert "standard input holds ''" in worker.log

    def test_it_imports_neither_starlette_nor_pluggy(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless, CURIOUS)
        assert "web: []\nengine: ['llama_cpp']" in worker.log

    def test_its_environment_is_set_before_the_load(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless, CURIOUS)
        assert "mark: set by the router" in worker.log

    def test_the_log_holds_nothing_when_all_is_well(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless)
        worker.answer(1, short(3))
        worker.send(wire.Stop())
        assert worker.exit_code() == 0
        assert worker.log == ""

    def test_ctrl_c_is_the_routers_business(self, worker: WorkerProcess, endless: Path) -> None:
        worker.load(endless)
        os.kill(worker.process.pid, signal.SIGINT)
        assert isinstance(worker.answer(1, short(3))[-1], FinishDelta)


def stay_new(worker: WorkerProcess, endless: Path, slow: Path) -> None:
    """Nobody has said hello yet."""


def become_spare(worker: WorkerProcess, endless: Path, slow: Path) -> None:
    worker.hello()


def begin_native_load(worker: WorkerProcess, endless: Path, slow: Path) -> None:
    worker.begin_load(slow)


def become_idle(worker: WorkerProcess, endless: Path, slow: Path) -> None:
    worker.load(endless)


def begin_decoding(worker: WorkerProcess, endless: Path, slow: Path) -> None:
    worker.load(endless, n_ctx=LONG_CONTEXT)
    worker.send(wire.Submit(1, ENDLESS_TASK, credit=1_000_000))
    worker.deltas(1, 5)


Phase = Callable[[WorkerProcess, Path, Path], None]
PHASES = [stay_new, become_spare, begin_native_load, become_idle, begin_decoding]


@pytest.mark.parametrize("phase", PHASES)
class TestEnd:
    @pytest.fixture(autouse=True)
    def _bring_there(self, worker: WorkerProcess, endless: Path, slow: Path, phase: Phase) -> None:
        phase(worker, endless, slow)

    def test_the_end_of_the_channel_ends_it(self, worker: WorkerProcess) -> None:
        worker.stdin.close()
        assert worker.exit_code() == ORPHANED
        # Not even a load that was under way came to its end.
        assert not any(isinstance(message, wire.Loaded) for message in worker.rest())

    def test_stop_ends_it_politely(self, worker: WorkerProcess, phase: Phase) -> None:
        worker.send(wire.Stop())
        rest = worker.rest()
        assert worker.exit_code() == 0
        assert not any(isinstance(message, (wire.Loaded, wire.LoadFailed)) for message in rest)
        assert worker.log == ""
        if phase is begin_decoding:
            last = rest[-1]
            assert isinstance(last, wire.Step)
            assert [getattr(delta, "reason", None) for _, delta in last.deltas] == ["cancelled"]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_signals_end_it_at_once(self, worker: WorkerProcess, number: signal.Signals) -> None:
        worker.process.send_signal(number)
        assert worker.exit_code() == -number
        assert not any(isinstance(message, wire.Loaded) for message in worker.rest())


def test_a_reader_that_does_not_read_cannot_keep_it_alive(
    worker: WorkerProcess, endless: Path
) -> None:
    begin_decoding(worker, endless, endless)
    # The pipe is full long before these frames are all written.
    worker.send(*(wire.Submit(number, ENDLESS_TASK, 10**6) for number in range(2, 6)))
    worker.stdin.close()
    assert worker.exit_code() == ORPHANED


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_the_death_of_its_parent_ends_it_though_the_channel_stays_open() -> None:
    # As when another child of the router, forked at the wrong moment, holds the pipe.
    script = (
        "import signal, subprocess\n"
        f"subprocess.Popen({COMMAND!r}, stderr=subprocess.DEVNULL)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(wire.encode(wire.Hello(wire.PROTOCOL, "0")))
        parent.stdin.flush()
        (ready,) = wire.router_decoder().feed(os.read(parent.stdout.fileno(), 1000))
        assert isinstance(ready, wire.Ready)
        parent.kill()
        wait_until_gone(ready.pid)
        assert not parent.stdin.closed
