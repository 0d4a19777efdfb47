"""A real worker sleeps and wakes: what it gives back, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from statistics import linear_regression

import pytest

from llm_router_mw import wire
from llm_router_mw.memory.processes import process_memory
from llm_router_mw.types import (
    CompletionTask,
    ContentDelta,
    Delta,
    FailureDelta,
    FinishDelta,
    LoadOptions,
    Sampling,
    SleepLevel,
)
from tests.support.tiny_models import write_tiny_llama
from tests.worker.process import CHAT_FORMATS, ENDLESS_TASK, WorkerProcess

MIB = 1024 * 1024
N_CYCLES = 200
MAX_GROWTH_BYTES = 2048
"""Per cycle. A context that is not freed holds hundreds of thousands; the allocator takes about a
thousand cycles to find its size, and less of them each time."""
N_TRIES = 3
LEVELS: list[SleepLevel] = ["context", "full"]
SHORT = CompletionTask(prompt="the fox", max_tokens=4, sampling=Sampling(temperature=0))
HEAVY = CompletionTask(prompt="word " * 20_000, max_tokens=4)

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with much in its weights, and with 16 KiB of context for each token."""
    path = tmp_path_factory.mktemp("models") / "wide.gguf"
    return write_tiny_llama(path, n_ctx_train=1 << 20, n_embd=1024, n_layer=4, n_head=8)


def sleep(worker: WorkerProcess, level: SleepLevel) -> wire.Slept:
    """Send the worker to sleep."""
    worker.send(wire.Sleep(level))
    return worker.expect(wire.Slept)


def wake(worker: WorkerProcess) -> wire.Loaded:
    """Wake the worker."""
    worker.send(wire.Wake())
    while isinstance(message := worker.receive(), wire.Progress):
        pass
    assert isinstance(message, wire.Loaded), message
    return message


def text(deltas: list[Delta]) -> str:
    """Return the text of an answer, which must have come to its end."""
    assert isinstance(deltas[-1], FinishDelta), deltas
    return "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta))


def held(worker: WorkerProcess) -> int:
    """Return the bytes that the worker holds for itself."""
    memory = process_memory(worker.process.pid)
    assert memory is not None
    return memory.private_bytes


class TestMemory:
    @needs_proc
    @pytest.mark.parametrize("use_mmap", [True, False], ids=["mapped", "read"])
    def test_what_is_freed_goes_back_to_the_system(
        self, worker: WorkerProcess, wide: Path, use_mmap: bool
    ) -> None:
        worker.hello()
        spare = held(worker)
        options = LoadOptions(n_ctx=12_288, n_threads=1, use_mmap=use_mmap, touch_context=True)
        worker.send(wire.Load(str(wide), options, CHAT_FORMATS))
        while isinstance(message := worker.receive(), wire.Progress):
            pass
        assert isinstance(message, wire.Loaded), message
        weights = 0 if use_mmap else message.info.size_bytes
        assert weights == 0 or weights > 100 * MIB
        worker.answer(1, SHORT)
        for _ in range(2):
            awake = held(worker)
            assert awake - spare > weights + 190 * MIB
            with_weights = sleep(worker, "context")
            # Between the two looks it may have used a page or two more.
            assert with_weights.private_bytes == pytest.approx(held(worker), abs=MIB)
            assert with_weights.freed_bytes == pytest.approx(awake - held(worker), abs=MIB)
            # What the interpreter has learnt by now is no part of the context.
            assert held(worker) - spare - weights < 0.01 * (awake - spare - weights) + 2 * MIB
            sleep(worker, "full")
            assert held(worker) - spare < 0.01 * (awake - spare) + 2 * MIB
            wake(worker)

    @needs_proc
    def test_asleep_it_holds_little(self, worker: WorkerProcess, wide: Path) -> None:
        worker.load(wide, n_ctx=4096, n_parallel=8, use_mmap=False, touch_context=True)
        worker.send(*(wire.Submit(number, SHORT) for number in range(8)))
        over = 0
        while over < 8:
            deltas = worker.expect(wire.Step).deltas
            over += sum(isinstance(delta, FinishDelta) for _, delta in deltas)
        assert held(worker) > 200 * MIB
        left = sleep(worker, "full").private_bytes
        assert left is not None
        assert left <= 120 * MIB

    @needs_proc
    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("level", LEVELS)
    def test_200_cycles_leave_nothing_behind(
        self, worker: WorkerProcess, endless: Path, level: SleepLevel
    ) -> None:
        worker.load(endless)
        answer = text(worker.answer(1, SHORT))

        def cycle() -> int:
            left = sleep(worker, level).private_bytes
            assert left is not None
            wake(worker)
            assert text(worker.answer(1, SHORT)) == answer
            return left

        for _ in range(N_CYCLES // 4):  # the allocator finds its size
            cycle()
        slopes = []
        for _ in range(N_TRIES):  # a leak shows each time, the allocator's moods do not
            sizes = [cycle() for _ in range(N_CYCLES - N_CYCLES // 4)]
            slopes.append(linear_regression(range(len(sizes)), sizes).slope)
            if slopes[-1] < MAX_GROWTH_BYTES:
                break
        assert slopes[-1] < MAX_GROWTH_BYTES, slopes


class TestSleep:
    @pytest.mark.parametrize("level", LEVELS)
    def test_awake_again_it_is_what_it_was(
        self, worker: WorkerProcess, endless: Path, level: SleepLevel
    ) -> None:
        first = worker.load(endless, n_ctx=512, n_parallel=3)
        answer = text(worker.answer(1, SHORT))
        for _ in range(2):
            sleep(worker, level)
            info = wake(worker).info
            assert (info.n_ctx, info.n_parallel) == (first.info.n_ctx, first.info.n_parallel)
            assert text(worker.answer(2, SHORT)) == answer
        worker.send(wire.Stop())
        assert worker.exit_code() == 0
        assert worker.log == ""

    @pytest.mark.parametrize("pooling", ["", "mean"])
    def test_sleeping_twice_does_no_harm(
        self, worker: WorkerProcess, endless: Path, pooling: str
    ) -> None:
        worker.load(endless, pooling=pooling)
        for level in (*LEVELS, *reversed(LEVELS)):
            sleep(worker, level)
        wake(worker)
        worker.send(wire.Stop())
        assert worker.exit_code() == 0

    def test_it_does_not_sleep_while_it_has_requests(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless)
        worker.send(wire.Submit(1, ENDLESS_TASK, credit=3))
        worker.deltas(1, 3)
        worker.send(wire.Sleep("full"))
        assert "while 1 requests are under way" in worker.expect(wire.SleepFailed).failure.message
        worker.send(wire.Credit(1, 2))
        assert len(worker.deltas(1, 2)) == 2

    def test_what_has_just_been_cancelled_does_not_keep_it_awake(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless)
        worker.send(wire.Submit(1, ENDLESS_TASK, credit=3))
        worker.deltas(1, 3)
        worker.send(wire.Cancel(1), wire.Sleep("full"))
        (finish,) = worker.deltas(1, 1)
        assert isinstance(finish, FinishDelta)
        worker.expect(wire.Slept)

    def test_what_is_prepared_aside_is_waited_for(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless)
        for number in range(10):
            worker.send(wire.Submit(number, HEAVY), wire.Cancel(number), wire.Sleep("full"))
            assert len(worker.deltas(number, 1)) == 1
            worker.expect(wire.Slept)
            wake(worker)
        assert text(worker.answer(99, SHORT))

    @pytest.mark.parametrize("task", [SHORT, HEAVY], ids=["short", "heavy"])
    def test_a_task_that_comes_too_late_is_asked_to_come_again(
        self, worker: WorkerProcess, endless: Path, task: CompletionTask
    ) -> None:
        worker.load(endless)
        worker.send(wire.Sleep("full"), wire.Submit(1, task), wire.Credit(1, 5), wire.Cancel(1))
        received = [worker.receive(), worker.receive()]
        (step,) = [message for message in received if isinstance(message, wire.Step)]
        [(number, delta)] = step.deltas
        assert number == 1
        assert isinstance(delta, FailureDelta)
        assert delta.failure.kind == "ModelUnloadedError"
        wake(worker)
        assert text(worker.answer(2, SHORT))


class TestWake:
    def test_a_failure_leaves_it_asleep(self, worker: WorkerProcess, tmp_path: Path) -> None:
        path = write_tiny_llama(tmp_path / "own.gguf")
        content = path.read_bytes()
        worker.load(path)
        sleep(worker, "full")
        path.write_bytes(b"no model any more")
        for _ in range(2):
            worker.send(wire.Wake())
            worker.expect(wire.Progress)
            assert worker.expect(wire.LoadFailed).failure.kind == "ModelLoadError"
        path.write_bytes(content)
        wake(worker)
        assert text(worker.answer(1, SHORT))

    def test_one_that_is_awake_stays_as_it_is(self, worker: WorkerProcess, endless: Path) -> None:
        worker.load(endless)
        worker.send(wire.Wake())
        worker.expect(wire.Progress)
        assert worker.expect(wire.LoadFailed).failure.kind == "WireError"
        assert text(worker.answer(1, SHORT))

    def test_a_stop_calls_it_off(self, worker: WorkerProcess, slow: Path) -> None:
        worker.load(slow)
        sleep(worker, "full")
        worker.send(wire.Wake())
        worker.expect(wire.Progress)
        worker.send(wire.Stop())
        assert not any(isinstance(message, wire.Loaded) for message in worker.rest())
        assert worker.exit_code() == 0


class TestSignsOfLife:
    def test_one_that_waits_for_its_reader_is_alive(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless)
        worker.send(wire.Submit(1, ENDLESS_TASK, credit=1))
        worker.deltas(1, 1)
        worker.expect(wire.Alive)
        worker.expect(wire.Alive)

    def test_one_that_has_nothing_to_do_is_silent(
        self, worker: WorkerProcess, endless: Path
    ) -> None:
        worker.load(endless)
        worker.answer(1, SHORT)
        assert worker.silent(1.5)
