"""What a process takes beside llama.cpp's buffers."""

from __future__ import annotations

from typing import Any

from llm_router_mw.engine import checkpoints
from llm_router_mw.memory.hyperparameters import read_hyperparameters
from llm_router_mw.memory.layers import place_layers
from llm_router_mw.memory.overhead import (
    CHECKPOINT_BYTES,
    CHECKPOINTS,
    BackendOverhead,
    host_overhead,
)
from llm_router_mw.memory.phases import Need
from llm_router_mw.memory.recurrent import recurrent_bytes
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import LoadOptions, Placement
from tests.support.model_headers import NOTHING, Metadata, header

MIB = 1024**2
SSM: Metadata = {"ssm.conv_kernel": 4, "ssm.inner_size": 4096, "ssm.state_size": 128}


def overhead(architecture: str = "llama", metadata: Metadata = NOTHING, **options: Any) -> Need:
    shape = read_hyperparameters(header(architecture, metadata))
    layers = place_layers(Placement(), (), shape.n_layer_all)
    return host_overhead(shape, resolve_context(shape, LoadOptions(**options)), layers)


def test_a_prior_stands_for_what_is_not_known_of_a_gpu() -> None:
    unknown = BackendOverhead()
    for kind in ("cuda", "vulkan", "other"):
        need = unknown.on("gpu", kind)
        assert 100 * MIB < need.expected < need.most < 1024 * MIB


def test_what_was_measured_counts_from_then_on_and_for_that_gpu() -> None:
    found = BackendOverhead({"a": 500 * MIB})
    found.learn("b", 300 * MIB)
    assert found.learned == {"a": 500 * MIB, "b": 300 * MIB}
    assert found.on("b", "cuda") == Need(300 * MIB, 375 * MIB)
    assert found.on("c", "cuda") == BackendOverhead().on("c", "cuda")


def test_nothing_is_ever_less_than_nothing() -> None:
    found = BackendOverhead()
    found.learn("a", -5)
    assert found.on("a", "cuda") == Need(0, 0)


def test_vocabulary_and_cells_take_room() -> None:
    plain = overhead()
    assert 40 * MIB < plain.expected < plain.most < 256 * MIB
    assert overhead(metadata={"vocab_size": 132_000}).expected - plain.expected == 300 * 100_000
    assert overhead(n_ctx=16_384).expected - plain.expected == 128 * 8192


def test_states_that_cannot_be_computed_back_are_kept_several_times() -> None:
    shape = read_hyperparameters(header("mamba2", SSM))
    layers = place_layers(Placement(), (), 4)
    context = resolve_context(shape, LoadOptions(n_parallel=1))
    (state,) = recurrent_bytes(shape, context, layers).values()
    found, plain = overhead("mamba2", SSM, n_parallel=1), overhead(n_parallel=1)
    assert found.most - plain.most == CHECKPOINTS * state
    assert found.expected - plain.expected == 2 * state
    assert overhead("mamba2", SSM, n_parallel=3).most - plain.most == 3 * CHECKPOINTS * state


def test_so_are_windows() -> None:
    window: Metadata = {"attention.sliding_window": 1000, "attention.sliding_window_pattern": 2}
    found = overhead("gemma3", window, n_parallel=1).most - overhead(n_parallel=1).most
    assert found == CHECKPOINTS * 2 * 2 * 256 * 2 * 1000


def test_embeddings_need_nothing_of_that() -> None:
    assert overhead("mamba2", SSM, pooling="last") == overhead(pooling="last")


def test_as_many_are_kept_as_the_engine_keeps() -> None:
    assert checkpoints._MAX_CHECKPOINTS == CHECKPOINTS
    assert checkpoints._MAX_BYTES == CHECKPOINT_BYTES


def test_of_many_sequences_no_more_than_the_engine_keeps() -> None:
    few, many = (overhead("mamba2", SSM, n_parallel=number) for number in (100, 200))
    assert CHECKPOINT_BYTES <= few.most - overhead().most < CHECKPOINT_BYTES + 64 * MIB
    assert many.most - few.most < 64 * MIB
