"""The estimator that remembers what loads really took."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec import structs

from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.observed import ObservedEstimator
from llm_router_mw.memory.overhead import BackendOverhead
from llm_router_mw.types import (
    HOST,
    BufferMemory,
    Device,
    LoadOptions,
    MeasuredMemory,
    Model,
    Placement,
)
from tests.support.tiny_models import write_tiny_llama

MIB = 2**20
GPU = Device(id="GPU-1", pool="GPU-1", kind="cuda", name="GPU", total_bytes=2**35, free_bytes=2**35)
ON_GPU = Placement(devices=("GPU-1",), n_gpu_layers=-1)
SEEN = structs.replace(GPU, id="0000:01:00.0", pci_id="0000:01:00.0")
MAPPED = BufferMemory(buffer_type="CPU_Mapped", device=HOST, weights_bytes=100 * MIB)
CACHE = BufferMemory(buffer_type="CPU", device=HOST, context_bytes=40 * MIB, compute_bytes=10 * MIB)
WITHIN = MeasuredMemory(buffers=(MAPPED, CACHE), private_bytes=60 * MIB)
OUTSIDE = structs.replace(WITHIN, private_bytes=2000 * MIB)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    return Model(id="m", path=str(path), source="test", options=LoadOptions(n_ctx=512))


@pytest.fixture
def observed(tmp_path: Path) -> ObservedEstimator:
    return ObservedEstimator(os.environ, tmp_path / "seen")


def test_what_was_never_loaded_is_not_known(observed: ObservedEstimator, model: Model) -> None:
    assert observed.estimate(model, Placement(), ()) is None


def test_what_was_loaded_is_known_by_its_buffers(observed: ObservedEstimator, model: Model) -> None:
    observed.record(model, Placement(), WITHIN, ())
    found = observed.estimate(model, Placement(), ())
    assert found is not None
    host = found.expected[HOST]
    assert (host.weights_bytes, host.context_bytes) == (100 * MIB, 40 * MIB)
    assert host.compute_bytes == 10 * MIB
    assert found.upper[HOST] > host.total_bytes > 150 * MIB
    assert (found.source, found.confidence) == ("observed", "measured")
    assert found.soft_bytes == 100 * MIB


def test_a_load_that_took_more_than_predicted_is_predicted_right(
    observed: ObservedEstimator, model: Model
) -> None:
    before = MetadataEstimator().estimate(model, Placement(), ())
    assert before.upper[HOST] < 2000 * MIB
    observed.record(model, Placement(), OUTSIDE, ())
    found = observed.estimate(model, Placement(), ())
    assert found is not None
    assert found.expected[HOST].total_bytes == 2100 * MIB
    assert 2200 * MIB >= found.upper[HOST] >= 2100 * MIB


def test_it_is_never_less_than_the_buffers_though_less_was_touched(
    observed: ObservedEstimator, model: Model
) -> None:
    observed.record(model, Placement(), structs.replace(WITHIN, private_bytes=1), ())
    found = observed.estimate(model, Placement(), ())
    assert found is not None
    assert found.upper[HOST] > found.expected[HOST].total_bytes >= 150 * MIB


def test_the_next_router_knows_it_too(
    observed: ObservedEstimator, model: Model, tmp_path: Path
) -> None:
    observed.record(model, Placement(), OUTSIDE, ())
    again = ObservedEstimator(os.environ, tmp_path / "seen")
    assert again.estimate(model, Placement(), ()) == observed.estimate(model, Placement(), ())


def test_it_is_good_for_this_file_only(observed: ObservedEstimator, model: Model) -> None:
    observed.record(model, Placement(), WITHIN, ())
    os.utime(model.path, ns=(1, 1))
    assert observed.estimate(model, Placement(), ()) is None


def test_it_is_good_for_this_build_of_llama_only(
    observed: ObservedEstimator, model: Model, tmp_path: Path
) -> None:
    observed.record(model, Placement(), WITHIN, ())
    environ = {**os.environ, "LLAMA_CPP_LIB_PATH": str(tmp_path)}
    other = ObservedEstimator(environ, tmp_path / "seen")
    assert other.estimate(model, Placement(), ()) is None


def test_it_is_good_for_these_options_and_this_place_only(
    observed: ObservedEstimator, model: Model
) -> None:
    observed.record(model, Placement(), WITHIN, ())
    longer = structs.replace(model, options=LoadOptions(n_ctx=1024))
    assert observed.estimate(longer, Placement(), ()) is None
    assert observed.estimate(model, Placement(n_ctx=256), ()) is None
    assert observed.estimate(model, Placement(degraded=True), ()) is not None


def test_without_a_breakdown_nothing_is_learned(observed: ObservedEstimator, model: Model) -> None:
    observed.record(model, Placement(), MeasuredMemory(private_bytes=5), ())
    assert observed.estimate(model, Placement(), ()) is None


def test_locked_pages_are_not_soft(observed: ObservedEstimator, model: Model) -> None:
    locked = structs.replace(model, options=LoadOptions(use_mlock=True))
    observed.record(locked, Placement(), WITHIN, ())
    found = observed.estimate(locked, Placement(), ())
    assert found is not None
    assert found.soft_bytes == 0


def test_what_a_gpu_takes_beside_the_buffers_is_learned_for_all_models(
    tmp_path: Path, model: Model
) -> None:
    overhead = BackendOverhead()
    observed = ObservedEstimator(os.environ, tmp_path, overhead=overhead)
    on_gpu = BufferMemory(buffer_type="CUDA0", device=SEEN.id, weights_bytes=300 * MIB)
    memory = MeasuredMemory(buffers=(on_gpu, CACHE), devices=(SEEN,), private_bytes=60 * MIB)
    observed.record(model, ON_GPU, memory, [GPU], {"GPU-1": 500 * MIB, HOST: 70 * MIB})
    assert overhead.learned == {"GPU-1": 200 * MIB}
    found = observed.estimate(model, ON_GPU, [GPU])
    assert found is not None
    assert found.expected["GPU-1"].total_bytes == 500 * MIB
    assert 560 * MIB >= found.upper["GPU-1"] >= 525 * MIB
    # It may grow while it works.
    observed.record(model, ON_GPU, memory, [GPU], {"GPU-1": 900 * MIB})
    found = observed.estimate(model, ON_GPU, [GPU])
    assert found is not None
    assert found.upper["GPU-1"] >= 945 * MIB


def test_devices_that_are_gone_leave_nothing_to_say(
    observed: ObservedEstimator, model: Model
) -> None:
    elsewhere = BufferMemory(buffer_type="CUDA0", device="0000:09:00.0", weights_bytes=1)
    memory = MeasuredMemory(buffers=(elsewhere,))
    observed.record(model, Placement(), memory, (), {"GPU-9": 1})
    assert observed.estimate(model, Placement(), ()) is None
