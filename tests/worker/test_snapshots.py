"""Real workers save conversations and go on from them; whatever happens to the files, they live."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_router_mw import wire
from llm_router_mw.snapshot_file import part_path, read_header
from llm_router_mw.types import (
    CompletionTask,
    ContentDelta,
    Delta,
    FinishDelta,
    LoadOptions,
    Sampling,
    SequenceInfo,
    SleepLevel,
    Snapshot,
    Spare,
)
from tests.support.tiny_architectures import write_tiny
from tests.support.tiny_models import FIRST_PIECE, write_tiny_llama
from tests.worker.process import CHAT_FORMATS, ENDLESS_TASK, WorkerProcess

IDENTITY = "this model"
Tokens = tuple[int, ...]
Spawn = Callable[[], WorkerProcess]


def tokens(start: int, length: int) -> Tokens:
    """Return a prompt of *length* tokens, different for each *start*."""
    return tuple(FIRST_PIECE + (start * 7 + step * step + step) % 100 for step in range(length))


def task(given: Tokens, max_tokens: int = 20) -> CompletionTask:
    return CompletionTask(prompt=given, max_tokens=max_tokens, sampling=Sampling(temperature=0))


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start workers that are gone after the test."""
    workers: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        workers.append(WorkerProcess(tmp_path / f"worker-{len(workers)}.log"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "snapshots"
    path.mkdir()
    return path


def load(worker: WorkerProcess, path: Path, identity: str = IDENTITY, **options: object) -> None:
    """Load with an identity; the context has room for 512 tokens."""
    worker.hello()
    chosen = LoadOptions(**{"n_ctx": 512, "n_threads": 1, **options})  # type: ignore[arg-type]
    worker.send(wire.Load(str(path), chosen, CHAT_FORMATS, identity=identity))
    loaded(worker)


def loaded(worker: WorkerProcess) -> None:
    while isinstance(message := worker.receive(), wire.Progress):
        pass
    assert isinstance(message, wire.Loaded), message


def sequences(worker: WorkerProcess) -> list[SequenceInfo]:
    """Return what idle slots hold."""
    worker.send(wire.ListSequences())
    return worker.expect(wire.Sequences).infos


def save(worker: WorkerProcess, folder: Path) -> Snapshot:
    """Save the only conversation."""
    [info] = sequences(worker)
    worker.send(wire.SaveSequence(info.sequence, str(folder / "saved")))
    return worker.expect(wire.SequenceSaved).snapshot


def outcome(deltas: list[Delta]) -> tuple[str, int]:
    """Return the text of an answer, and how many tokens of its prompt were spared."""
    finish = deltas[-1]
    assert isinstance(finish, FinishDelta), deltas
    text = "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta))
    return text, finish.usage.cached_tokens


def ask(worker: WorkerProcess, given: Tokens) -> tuple[str, int]:
    """Return the answer and what was spared; nothing else may be told meanwhile."""
    return outcome(worker.answer(1, task(given)))


def ask_again(worker: WorkerProcess, given: Tokens, path: str) -> tuple[str, int]:
    """Ask what the snapshot in *path* is of use for."""
    worker.send(wire.Submit(1, task(given)))
    used = worker.expect(wire.SnapshotUsed)
    assert used.path == path
    deltas: list[Delta] = []
    while not deltas or not isinstance(deltas[-1], FinishDelta):
        deltas += [delta for _, delta in worker.expect(wire.Step).deltas]
    text, spared = outcome(deltas)
    assert used.n_tokens == spared
    return text, spared


FIRST, LONGER = tokens(1, 100), (*tokens(1, 100), *tokens(2, 30))


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "granitehybrid", "mamba"])
def test_a_fresh_process_goes_on_to_the_last_token(
    spawn: Spawn, folder: Path, architecture: str
) -> None:
    path = write_tiny(folder / "model.gguf", architecture)
    first, second = spawn(), spawn()
    load(first, path)
    ask(first, FIRST)
    saved = save(first, folder)
    expected, _ = ask(first, LONGER)
    first.send(wire.Stop())
    load(second, path)
    second.send(wire.OfferSnapshots([saved]))
    text, spared = ask_again(second, LONGER, saved.path)
    assert text == expected
    assert spared >= 96


@pytest.mark.parametrize("level", ["context", "full"])
def test_it_outlasts_sleep(spawn: Spawn, endless: Path, folder: Path, level: SleepLevel) -> None:
    worker = spawn()
    load(worker, endless)
    ask(worker, FIRST)
    saved = save(worker, folder)
    worker.send(wire.OfferSnapshots([saved]), wire.Sleep(level))
    worker.expect(wire.Slept)
    assert sequences(worker) == []
    worker.send(wire.SaveSequence(0, str(folder / "none")))
    failed = worker.expect(wire.SaveFailed)
    assert (failed.path, failed.failure.kind) == (str(folder / "none"), "SnapshotError")
    worker.send(wire.Wake())
    loaded(worker)
    assert ask_again(worker, LONGER, saved.path)[1] == 100


def test_offers_that_come_while_it_sleeps_are_used(
    spawn: Spawn, endless: Path, folder: Path
) -> None:
    worker = spawn()
    load(worker, endless)
    ask(worker, FIRST)
    saved = save(worker, folder)
    worker.send(wire.Sleep("context"))
    worker.expect(wire.Slept)
    worker.send(wire.OfferSnapshots([saved]), wire.Wake())
    loaded(worker)
    assert ask_again(worker, LONGER, saved.path)[1] == 100
    worker.send(wire.WithdrawSnapshots([saved.path]))
    assert ask(worker, (*FIRST, *tokens(5, 20)))[1] == 100


def test_while_requests_run_others_are_listed_and_saved(
    spawn: Spawn, endless: Path, folder: Path
) -> None:
    worker = spawn()
    load(worker, endless, n_ctx=4096)
    ask(worker, FIRST)
    worker.send(wire.Submit(7, ENDLESS_TASK, 4))
    worker.deltas(7, 4)
    saved = save(worker, folder)
    assert saved.n_tokens == read_header(saved.path).n_tokens == 119
    worker.send(wire.Cancel(7))
    assert outcome(worker.deltas(7, 1))[0] == ""


def test_what_overflows_is_kept_and_comes_back(spawn: Spawn, endless: Path, folder: Path) -> None:
    worker = spawn()
    load(worker, endless, n_ctx=256)
    spare = str(folder / "spare")
    part_path(spare).touch()
    worker.send(wire.OfferSnapshots([], [Spare(path=spare, limit_bytes=1 << 20)]))
    expected, _ = ask(worker, FIRST)
    worker.send(wire.Submit(2, task(tokens(3, 200))))
    kept, over = None, False
    while kept is None or not over:
        message = worker.receive()
        if isinstance(message, wire.SnapshotKept):
            kept = message.snapshot
        else:
            assert isinstance(message, wire.Step), message
            over = isinstance(message.deltas[-1][1], FinishDelta)
    assert (kept.path, kept.n_tokens) == (spare, 119)
    text, spared = ask_again(worker, FIRST, spare)
    assert (text, spared) == (expected, 99)


def test_bad_files_are_told_of(spawn: Spawn, endless: Path, folder: Path) -> None:
    worker = spawn()
    load(worker, endless)
    expected, _ = ask(worker, FIRST)
    saved = save(worker, folder)
    Path(saved.path).write_bytes(b"nonsense")
    worker.send(wire.Sleep("full"))
    worker.expect(wire.Slept)
    worker.send(wire.Wake(), wire.OfferSnapshots([saved]))
    loaded(worker)
    worker.send(wire.Submit(1, task(FIRST)))
    bad = worker.expect(wire.SnapshotBad)
    assert bad.path == saved.path
    deltas: list[Delta] = []
    while not deltas or not isinstance(deltas[-1], FinishDelta):
        deltas += [delta for _, delta in worker.expect(wire.Step).deltas]
    assert outcome(deltas) == (expected, 0)


class TestNoRoom:
    def test_a_file_that_must_not_be_so_large(
        self, spawn: Spawn, endless: Path, folder: Path
    ) -> None:
        worker = spawn()
        load(worker, endless)
        ask(worker, FIRST)
        # The kernel sends a signal too, whose default is to end the process.
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (8192, 8192))
        [info] = sequences(worker)
        worker.send(wire.SaveSequence(info.sequence, str(folder / "saved")))
        failure = worker.expect(wire.SaveFailed).failure
        assert "no room" in failure.message
        assert list(folder.iterdir()) == []
        assert ask(worker, LONGER)[1] == 100

    @pytest.mark.parametrize("where", ["save", "spare"])
    def test_a_full_file_system(
        self, spawn: Spawn, endless: Path, full_disk: Path, where: str
    ) -> None:
        worker = spawn()
        load(worker, endless, n_ctx=256)
        path = str(full_disk / "saved")
        if where == "save":
            ask(worker, FIRST)
            [info] = sequences(worker)
            worker.send(wire.SaveSequence(info.sequence, path))
            assert "no room" in worker.expect(wire.SaveFailed).failure.message
        else:
            worker.send(wire.OfferSnapshots([], [Spare(path=path, limit_bytes=1 << 20)]))
            ask(worker, FIRST)
            worker.send(wire.Submit(2, task(tokens(3, 200))))
            assert "no room" in worker.expect(wire.SnapshotBad).reason
            while not isinstance(worker.expect(wire.Step).deltas[-1][1], FinishDelta):
                pass
        assert list(full_disk.iterdir()) == []
        assert len(ask(worker, tokens(4, 50))[0]) > 0


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for two pages, where one may be mounted."""
    path = tmp_path / "full"
    path.mkdir()
    command = f"mount -t tmpfs -o size=8k tmpfs {path} 2>/dev/null"
    if sys.platform != "linux" or os.system(command) != 0:
        pytest.skip("must be allowed to mount a file system")
    yield path
    assert os.system(f"umount {path}") == 0


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 4 KiB of context for each token: saving takes a while."""
    path = tmp_path_factory.mktemp("models") / "wide.gguf"
    return write_tiny_llama(path, n_embd=256, n_layer=4, n_head=8)


def test_killed_while_it_saves_it_leaves_all_or_nothing(
    spawn: Spawn, wide: Path, folder: Path
) -> None:
    worker, path = spawn(), folder / "saved"
    load(worker, wide)
    ask(worker, tokens(1, 400))
    [info] = sequences(worker)
    assert info.state_bytes > 1 << 20
    worker.send(wire.SaveSequence(info.sequence, str(path)))
    while not part_path(path).exists() and not path.exists():
        assert worker.process.poll() is None
    worker.process.send_signal(signal.SIGKILL)
    worker.exit_code()
    if path.exists():
        assert read_header(path).n_tokens == 419
    # The next one writes over what is left.
    other = spawn()
    load(other, wide)
    ask(other, tokens(2, 70))
    assert read_header(save(other, folder).path).n_tokens == 89
    assert not part_path(path).exists()
