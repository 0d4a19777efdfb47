"""The estimator that lets llama.cpp load without memory, and what can go wrong with its child."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from llm_router_mw.memory.dry_run import GPU_BYTES, HOST_BYTES, DryRunEstimator
from llm_router_mw.memory.dry_run_order import DryRunAnswer, DryRunOrder
from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.processes import sizes
from llm_router_mw.protocols import PreparingEstimator
from llm_router_mw.types import (
    HOST,
    BufferMemory,
    Device,
    Failure,
    LoadOptions,
    LoraAdapter,
    MeasuredMemory,
    Model,
    Placement,
)
from tests.support.processes import until
from tests.support.sparse_models import BROKEN, write_sparse_model
from tests.support.tiny_lora import write_tiny_lora
from tests.support.tiny_models import write_tiny_llama

MIB = 2**20
GPU = Device(id="GPU-1", pool="GPU-1", kind="cuda", name="GPU", total_bytes=2**35, free_bytes=2**35)
ON_GPU = Placement(devices=("GPU-1",), n_gpu_layers=-1)
SEEN = structs.replace(GPU, id="0000:01:00.0", pci_id="0000:01:00.0")


def model_at(path: Path, **options: object) -> Model:
    load = LoadOptions(**{"n_ctx": 512, **options})  # type: ignore[arg-type]
    return Model(id="m", path=str(path), source="test", options=load)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


class FakeChild:
    """Makes commands that answer without llama.cpp, and counts how often they ran."""

    def __init__(self, folder: Path) -> None:
        self._count = folder / "count"

    @property
    def runs(self) -> int:
        return len(self._count.read_text()) if self._count.exists() else 0

    def __call__(self, code: str) -> tuple[str, ...]:
        counted = f"open({str(self._count)!r}, 'a').write('x'); import os, sys, time; {code}"
        return (sys.executable, "-c", counted)

    def answering(self, answer: DryRunAnswer) -> tuple[str, ...]:
        return self(f"sys.stdout.write({msgspec.json.encode(answer).decode()!r})")


@pytest.fixture
def child(tmp_path: Path) -> FakeChild:
    return FakeChild(tmp_path)


def estimator(command: tuple[str, ...], **more: float) -> DryRunEstimator:
    return DryRunEstimator(os.environ, always=True, command=command, **more)  # type: ignore[arg-type]


def measured(*buffers: BufferMemory, note: str = "") -> DryRunAnswer:
    return DryRunAnswer(memory=MeasuredMemory(buffers=buffers, devices=(SEEN,), note=note))


def test_it_agrees_with_the_metadata_where_these_are_exact(tmp_path: Path) -> None:
    model = model_at(write_sparse_model(tmp_path / "large.gguf", "llama-8b"))
    found = DryRunEstimator(os.environ, always=True).estimate(model, Placement(), ())
    assert found is not None
    other = MetadataEstimator().estimate(model, Placement(), ())
    mine, theirs = found.expected[HOST], other.expected[HOST]
    assert mine.weights_bytes == theirs.weights_bytes
    assert mine.context_bytes == theirs.context_bytes
    assert mine.compute_bytes == pytest.approx(theirs.compute_bytes, rel=0.02)
    assert found.soft_bytes == other.soft_bytes > 0
    assert (found.source, found.confidence) == ("dry-run", "exact")
    assert found.expected[HOST].total_bytes < found.upper[HOST] <= other.upper[HOST] + 8 * MIB


def test_nothing_of_the_file_is_soft_that_is_read_instead_of_mapped(tiny: Path) -> None:
    dry_run = DryRunEstimator(os.environ, always=True)
    read = dry_run.estimate(model_at(tiny, use_mmap=False), Placement(), ())
    locked = dry_run.estimate(model_at(tiny, use_mlock=True), Placement(), ())
    assert read is not None
    assert locked is not None
    assert (read.soft_bytes, locked.soft_bytes) == (0, 0)


def test_a_child_that_aborts_is_logged_and_nobody_asks_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_at(write_sparse_model(tmp_path / "broken.gguf", BROKEN))
    dry_run = DryRunEstimator(os.environ, always=True)
    assert dry_run.estimate(model, Placement(), ()) is None
    assert "the dry run of m died (-6)" in caplog.text
    caplog.clear()
    assert dry_run.estimate(model, Placement(), ()) is None
    assert not caplog.text


def test_a_child_that_ends_by_itself_is_asked_again(tiny: Path, child: FakeChild) -> None:
    dry_run = estimator(child("sys.exit(3)"))
    assert dry_run.estimate(model_at(tiny), Placement(), ()) is None
    assert dry_run.estimate(model_at(tiny), Placement(), ()) is None
    assert child.runs == 2


def test_a_child_that_hangs_is_given_up(
    tiny: Path, child: FakeChild, caplog: pytest.LogCaptureFixture
) -> None:
    dry_run = estimator(child("time.sleep(60)"), timeout_seconds=0.2)
    assert dry_run.estimate(model_at(tiny), Placement(), ()) is None
    assert "the dry run of m failed" in caplog.text
    assert "timed out" in caplog.text


def test_a_child_that_speaks_nonsense_or_cannot_start_is_no_answer(
    tiny: Path, child: FakeChild
) -> None:
    assert estimator(child("print('hm')")).estimate(model_at(tiny), Placement(), ()) is None
    assert estimator(("/no/such/program",)).estimate(model_at(tiny), Placement(), ()) is None


def test_a_refusal_is_logged_once_in_its_own_words(
    tiny: Path, child: FakeChild, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = Failure(kind="NotSupportedError", message="another C++ library")
    dry_run = estimator(child.answering(DryRunAnswer(failure=refusal)))
    caplog.set_level(logging.WARNING)
    assert dry_run.estimate(model_at(tiny), Placement(), ()) is None
    assert dry_run.estimate(model_at(tiny), Placement(), ()) is None
    assert caplog.messages == ["no dry run of m: another C++ library"]
    assert child.runs == 1


def test_an_answer_holds_until_the_file_or_the_options_change(
    tmp_path: Path, child: FakeChild
) -> None:
    path = write_tiny_llama(tmp_path / "changing.gguf")
    host = BufferMemory(buffer_type="CPU", device=HOST, weights_bytes=1)
    dry_run = estimator(child.answering(measured(host)))
    for options, runs in (({}, 1), ({}, 1), ({"n_ctx": 1024}, 2)):
        dry_run.estimate(model_at(path, **options), Placement(), ())
        assert child.runs == runs
    os.utime(path, ns=(1, 1))
    dry_run.estimate(model_at(path), Placement(), ())
    assert child.runs == 3


def test_it_waits_to_be_asked_where_the_metadata_are_enough(tiny: Path, child: FakeChild) -> None:
    host = BufferMemory(buffer_type="CPU", device=HOST, weights_bytes=1)
    dry_run = DryRunEstimator(os.environ, command=child.answering(measured(host)))
    assert dry_run.estimate(model_at(tiny), Placement(), ()) is None
    assert child.runs == 0
    dry_run.prepare(model_at(tiny), Placement(), ())
    assert dry_run.estimate(model_at(tiny), Placement(), ()) is not None
    assert child.runs == 1


def test_an_unknown_architecture_wants_one(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes(tiny.read_bytes().replace(b"llama", b"xyzzy"))
    dry_run = DryRunEstimator(os.environ)
    assert isinstance(dry_run, PreparingEstimator)
    assert dry_run.is_wanted(model_at(path))
    assert not dry_run.is_wanted(model_at(tiny))


def test_what_is_prepared_is_so_for_these_devices(tiny: Path, child: FakeChild) -> None:
    seen = BufferMemory(buffer_type="CUDA0", device=SEEN.id, weights_bytes=1)
    dry_run = DryRunEstimator(os.environ, command=child.answering(measured(seen)))
    assert not dry_run.is_prepared(model_at(tiny), ON_GPU, [GPU])
    dry_run.prepare(model_at(tiny), ON_GPU, [GPU])
    assert dry_run.is_prepared(model_at(tiny), ON_GPU, [GPU])
    assert dry_run.is_prepared(model_at(tiny), structs.replace(ON_GPU, degraded=True), [GPU])
    fuller = structs.replace(GPU, free_bytes=1)
    assert dry_run.estimate(model_at(tiny), ON_GPU, [fuller]) is not None
    other = structs.replace(GPU, total_bytes=2**34)
    assert dry_run.estimate(model_at(tiny), ON_GPU, [other]) is None


def test_it_says_what_it_takes_itself(tiny: Path) -> None:
    needs = DryRunEstimator(os.environ).needs(ON_GPU, [GPU])
    assert needs == {HOST: HOST_BYTES, "GPU-1": GPU_BYTES}


def test_a_child_takes_no_more_than_it_says(tmp_path: Path) -> None:
    order = DryRunOrder(
        path=str(write_sparse_model(tmp_path / "large.gguf", "qwen35-27b")),
        options=LoadOptions(n_ctx=8192, n_parallel=16),
        placement=Placement(),
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "llm_router_mw.worker.dry_run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
        assert b"buffers" in process.stdout.readline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.stdin.close()
    assert sizes(status)["VmHWM"] < HOST_BYTES


def test_who_needs_no_child_does_not_wait_for_one(
    tiny: Path, child: FakeChild, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    dry_run = DryRunEstimator(
        os.environ, command=child(f"open({str(started)!r}, 'w'); time.sleep(60)")
    )
    thread = threading.Thread(
        target=dry_run.prepare, args=(model_at(tiny, n_ctx=256), Placement(), ())
    )
    thread.start()
    try:
        until(started.exists, "the start of the child")
        assert dry_run.estimate(model_at(tiny), Placement(), ()) is None
    finally:
        dry_run.cancel()
        thread.join(30)
    assert not thread.is_alive()


def test_one_that_was_cut_short_can_be_asked_again(
    tiny: Path, child: FakeChild, caplog: pytest.LogCaptureFixture
) -> None:
    dry_run = DryRunEstimator(os.environ, command=child("time.sleep(60)"))
    for runs in (1, 2):
        thread = threading.Thread(target=dry_run.prepare, args=(model_at(tiny), Placement(), ()))
        thread.start()
        until(lambda runs=runs: child.runs == runs, "the start of the child")  # type: ignore[misc]
        dry_run.cancel()
        thread.join(30)
        assert not thread.is_alive()
    assert not dry_run.is_prepared(model_at(tiny), Placement(), ())
    assert not caplog.text


def test_buffers_of_the_gpu_are_charged_to_it_under_its_lasting_name(
    tiny: Path, child: FakeChild
) -> None:
    answer = measured(
        BufferMemory(buffer_type="CUDA0", device=SEEN.id, weights_bytes=7 * MIB, context_bytes=MIB),
        BufferMemory(buffer_type="CUDA_Host", device=HOST, compute_bytes=3),
    )
    found = estimator(child.answering(answer)).estimate(model_at(tiny), ON_GPU, [GPU])
    assert found is not None
    on_gpu = found.expected["GPU-1"]
    assert (on_gpu.weights_bytes, on_gpu.context_bytes) == (7 * MIB, MIB)
    assert on_gpu.overhead_bytes > 100 * MIB
    assert found.upper["GPU-1"] > on_gpu.total_bytes
    assert found.expected[HOST].compute_bytes == 3


def test_what_lies_on_an_unknown_device_or_by_rows_is_not_told(
    tiny: Path, child: FakeChild
) -> None:
    answer = measured(BufferMemory(buffer_type="CUDA0", device=SEEN.id, weights_bytes=7))
    dry_run = estimator(child.answering(answer))
    assert dry_run.estimate(model_at(tiny), Placement(), ()) is None
    by_rows = structs.replace(ON_GPU, split_mode="row")
    assert dry_run.estimate(model_at(tiny), by_rows, [GPU]) is None


def test_what_was_reckoned_from_fewer_sequences_has_more_to_spare(
    tiny: Path, child: FakeChild, tmp_path: Path
) -> None:
    host = BufferMemory(buffer_type="CPU", device=HOST, compute_bytes=100 * MIB)
    found = estimator(child.answering(measured(host, note="reckoned"))).estimate(
        model_at(tiny), Placement(), ()
    )
    other = FakeChild(tmp_path / "other")
    (tmp_path / "other").mkdir()
    exact = estimator(other.answering(measured(host))).estimate(model_at(tiny), Placement(), ())
    assert found is not None
    assert exact is not None
    assert found.upper[HOST] == exact.upper[HOST] + 25 * MIB
    assert (found.confidence, found.notes) == ("high", ("reckoned",))


def test_adapters_are_added_to_what_was_sized_without_them(tiny: Path, tmp_path: Path) -> None:
    adapter = LoraAdapter(path=str(write_tiny_lora(tmp_path / "lora.gguf", "x")))
    dry_run = DryRunEstimator(os.environ, always=True)
    plain = dry_run.estimate(model_at(tiny), Placement(), ())
    adapted = dry_run.estimate(model_at(tiny, lora=(adapter,)), Placement(), ())
    assert plain is not None
    assert adapted is not None
    assert adapted.expected[HOST].weights_bytes > plain.expected[HOST].weights_bytes


def test_children_run_one_at_a_time(tiny: Path, tmp_path: Path) -> None:
    # Each child fails if it finds another one's mark.
    mark = str(tmp_path / "mark")
    answer = msgspec.json.encode(measured()).decode()
    code = (
        f"import os, sys, time; os.close(os.open({mark!r}, os.O_CREAT | os.O_EXCL)); "
        f"time.sleep(0.1); os.unlink({mark!r}); sys.stdout.write({answer!r})"
    )
    dry_run = estimator((sys.executable, "-c", code))
    found: list[object] = []

    def ask(n_ctx: int) -> None:
        found.append(dry_run.estimate(model_at(tiny, n_ctx=n_ctx), Placement(), ()))

    threads = [threading.Thread(target=ask, args=(n_ctx,)) for n_ctx in (256, 512, 768)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert None not in found
