"""Scratch memory on several devices, and the buffer of results."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.memory.compute import compute_needs, output_bytes
from llm_router_mw.memory.hyperparameters import read_hyperparameters
from llm_router_mw.memory.layers import place_layers
from llm_router_mw.memory.phases import Need, mask_bytes
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import Device, DeviceKind, LoadOptions, Placement
from tests.support.model_headers import NOTHING, Metadata, header

MIB = 1024**2
INPUTS = 512 * 1024 * 4
"""The embedded tokens of a batch."""


def gpu(name: str, kind: DeviceKind = "cuda") -> Device:
    return Device(id=name, pool=name, kind=kind, name=name, total_bytes=1, free_bytes=1)


def needs(
    architecture: str = "llama",
    metadata: Metadata = NOTHING,
    *,
    kind: DeviceKind = "cuda",
    host_layer: int = 0,
    devices: tuple[str, ...] = (),
    n_gpu_layers: int = -1,
    **options: Any,
) -> dict[str, Need]:
    shape = read_hyperparameters(header(architecture, metadata))
    load = LoadOptions(**options)
    placement = Placement(
        devices=devices, n_gpu_layers=n_gpu_layers, split_mode="layer", tensor_split=(1, 1)
    )
    known = [gpu("a", kind), gpu("b", kind)]
    layers = place_layers(placement, known, shape.n_layer_all)
    context = resolve_context(shape, load)
    return compute_needs(shape, context, layers, known, load, host_layer)


def masks(architecture: str = "llama", metadata: Metadata = NOTHING, **options: Any) -> int:
    shape = read_hyperparameters(header(architecture, metadata))
    return mask_bytes(shape, resolve_context(shape, LoadOptions(**options)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 512 * 8192 * 2),
        ({"flash_attn": "off"}, 512 * 8192 * 4),
        ({"n_ubatch": 64, "n_ctx": 1024}, 64 * 1024 * 2),
        ({"kv_unified": False}, 512 * 2048 * 2),
    ],
)
def test_masks_say_which_tokens_see_which(options: dict[str, Any], expected: int) -> None:
    assert masks(**options) == expected


def test_sliding_layers_have_a_mask_of_their_own() -> None:
    window: Metadata = {"attention.sliding_window": 128}
    assert masks("gpt-oss", window) == 512 * 2 * (8192 + 1024)
    assert masks("gemma3", window) == 512 * 2 * 1024, "all of its four layers have windows"


def test_encoders_see_their_own_batch_only() -> None:
    assert masks("bert", pooling="mean") == 512 * 512 * 2
    window: Metadata = {"attention.sliding_window": 128}
    assert masks("gemma-embedding", pooling="mean") == 512 * 512 * 2
    assert masks("modern-bert", window, pooling="mean") == 512 * 512 * 2


def test_recurrent_models_have_no_mask() -> None:
    assert masks("mamba2") == 0


def test_on_the_host_alone_the_hungriest_phase_counts() -> None:
    found = needs()
    per_token = 4 * 1024 + 3 * 4096
    assert found["host"].expected == pytest.approx(4 * 512 * per_token + masks(), rel=1e-3)


def test_the_host_keeps_the_inputs_of_gpus() -> None:
    found = needs(devices=("a",))
    assert found["a"].expected == pytest.approx(needs()["host"].expected - INPUTS, rel=1e-2)
    # Embeddings may be given instead of tokens, and there is what is looked up for tokens.
    assert found["host"].expected == pytest.approx(2 * INPUTS + masks(), rel=0.02)


def test_each_device_computes_its_own_layers() -> None:
    found = needs(devices=("a",), n_gpu_layers=2)
    assert found["host"].expected == needs()["host"].expected
    assert found["a"].expected == needs()["host"].expected - 2 * INPUTS


def test_a_gpu_with_the_output_layer_alone_turns_rows_into_scores() -> None:
    found = needs(devices=("a",), n_gpu_layers=1)["a"]
    assert found.expected == pytest.approx(4 * 4 * (32_000 + 2 * 1024), rel=0.04)
    # It may have to pick the rows first.
    assert found.most > found.expected + 2 * INPUTS


def test_gpus_that_work_at_the_same_time_have_copies_of_the_inputs() -> None:
    alone, together = needs(devices=("a",)), needs(devices=("a", "b"))
    assert together["a"].expected == alone["a"].expected + 3 * masks() + 4 * INPUTS
    assert together["b"].expected == together["a"].expected + 4 * INPUTS
    host = 4 * (masks() + INPUTS) + INPUTS
    assert together["host"].expected == pytest.approx(host, rel=1e-2)
    partly = needs(devices=("a", "b"), n_gpu_layers=3)
    assert partly["a"].expected == alone["a"].expected - INPUTS


def test_without_flash_attention_the_places_of_values_are_inputs_too() -> None:
    one, four = needs(devices=("a",)), needs(devices=("a", "b"))
    slow, slower = (
        needs(devices=("a",), flash_attn="off"),
        needs(devices=("a", "b"), flash_attn="off"),
    )
    indices = 8 * 512 * 256
    assert slow["host"].expected - one["host"].expected == masks() + indices
    assert slower["host"].expected - four["host"].expected == 4 * (masks() + indices)


def test_state_space_layers_have_more_to_pass_on() -> None:
    plain: Metadata = {"attention.head_count": 0, "feed_forward_length": 0}
    ssm = {**plain, "ssm.conv_kernel": 4, "ssm.inner_size": 2048, "ssm.state_size": 16}
    alone, together = needs("mamba2", ssm, devices=("a",)), needs("mamba2", ssm, devices=("a", "b"))
    passed_on = INPUTS + 4 * 512 * 2048
    assert together["b"].expected - together["a"].expected == 4 * passed_on
    assert together["a"].expected - alone["a"].expected == 4 * passed_on - INPUTS


@pytest.mark.parametrize("options", [{"kind": "rpc"}, {"op_offload": False}])
def test_the_host_computes_with_its_weights_what_no_gpu_computes(options: dict[str, Any]) -> None:
    plain = needs(devices=("a",), **options)
    mixed = needs(devices=("a",), host_layer=100 * MIB, **options)
    network = 4 * 512 * (4 * 1024 + 3 * 4096)
    assert mixed["host"].expected - plain["host"].expected == network
    assert mixed["a"] == plain["a"]


def test_the_host_computes_what_looks_at_a_cache_that_stays_there() -> None:
    plain, kept = needs(devices=("a",)), needs(devices=("a",), offload_kqv=False)
    attention = 4 * 512 * (3 * 1024 + 2 * 1024 + 2 * 256)
    assert kept["host"].expected - plain["host"].expected == attention


def test_weights_on_the_host_are_sent_to_the_gpu_for_large_batches() -> None:
    assert needs(devices=("a",), host_layer=0)["a"].most == needs(devices=("a",))["a"].most
    without, sent = needs(devices=("a",)), needs(devices=("a",), host_layer=100 * MIB)
    assert sent["a"].most == without["a"].most + 100 * MIB
    assert without["a"].expected < sent["a"].expected < sent["a"].most
    for options in ({"op_offload": False}, {"n_ubatch": 16}):
        small = needs(devices=("a",), host_layer=100 * MIB, **options)
        assert small["a"] == needs(devices=("a",), **options)["a"]


@pytest.mark.parametrize(
    ("kind", "options", "elements"),
    [
        ("cuda", {"type_k": "q8_0", "type_v": "q8_0"}, 512),
        ("cuda", {"type_k": "q8_0"}, 256),
        ("rocm", {"type_v": "q4_0"}, 256),
        ("cuda", {}, 0),
        ("cuda", {"type_k": "q8_0", "flash_attn": "off"}, 0),
        ("vulkan", {"type_k": "q8_0", "type_v": "q8_0"}, 0),
    ],
)
def test_cuda_reads_a_quantised_cache_through_a_copy(
    kind: DeviceKind, options: dict[str, Any], elements: int
) -> None:
    found = needs(devices=("a",), kind=kind, **options)["a"].expected
    elsewhere = needs(devices=("a",), kind="other", **options)["a"].expected
    assert found - elsewhere == 2 * 8192 * elements


def test_of_layers_without_a_cache_there_is_no_copy() -> None:
    shared: Metadata = {"attention.shared_kv_layers": 4}
    options: dict[str, Any] = {"type_k": "q8_0", "type_v": "q8_0", "devices": ("a",)}
    assert needs("gemma4", shared, **options) == needs("gemma4", shared, kind="other", **options)


def test_flash_attention_converts_a_cache_in_single_precision() -> None:
    plain, single = needs(n_ctx=65_536), needs(n_ctx=65_536, type_k="f32", type_v="f32")
    assert single["host"].expected > plain["host"].expected + 40 * MIB


def test_kinds_of_recurrence_take_different_room() -> None:
    plain: Metadata = {"attention.head_count": 0, "feed_forward_length": 0}
    ssm = {**plain, "ssm.conv_kernel": 4, "ssm.inner_size": 2048, "ssm.state_size": 16}
    convolution = needs("lfm2", {**plain, "attention.head_count_kv": 0, "shortconv.l_cache": 3})
    mamba, rwkv = needs("mamba", ssm), needs("rwkv7", {**plain, "wkv.head_size": 64})
    sizes = [found["host"].expected for found in (convolution, mamba, rwkv)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


def test_some_models_carry_several_streams() -> None:
    window: Metadata = {"attention.sliding_window": 512, "block_count": 4}
    wide, plain = needs("gemma3n", window)["host"], needs("gemma2", window)["host"]
    cells = masks("gemma3n", window) - masks("gemma2", window)
    assert wide.expected - plain.expected - cells == 9 * 4 * 512 * 1024


def test_flash_attention_is_never_used_for_some() -> None:
    assert masks("grok") == masks(flash_attn="off") == 2 * masks()


def test_results_are_the_scores_of_a_row_for_each_sequence() -> None:
    shape = read_hyperparameters(header())

    def results(**options: Any) -> int:
        return output_bytes(shape, resolve_context(shape, LoadOptions(**options)))

    assert results(n_parallel=3) == 4 * 32_000 * 3
    # Scores take room even where only embeddings are wanted.
    assert results(pooling="mean", n_batch=64) == 4 * (32_000 + 1024) * 64


def test_models_that_score_nothing_for_embeddings() -> None:
    kv_heads: Metadata = {"attention.head_count_kv": (0, 4, 0, 0), "shortconv.l_cache": 3}
    wide = {**kv_heads, "vocab_size": 500_000}
    narrow = needs("lfm2", kv_heads, pooling="last")
    assert needs("lfm2", wide, pooling="last") == narrow
    assert needs("llama", {"vocab_size": 500_000}, pooling="last") != needs(pooling="last")
