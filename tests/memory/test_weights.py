"""Where tensors lie, and what they take there."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGUFHeader
from llm_router_mw.memory import repack
from llm_router_mw.memory.hyperparameters import read_hyperparameters
from llm_router_mw.memory.layers import place_layers
from llm_router_mw.memory.weights import Weights, place_weights
from llm_router_mw.types import Device, DeviceKind, LoadOptions, Placement
from tests.support.model_headers import NOTHING, Metadata, Tensors, dense_tensors, header, size_of

GIB = 1024**3
LAYER = sum(
    size_of(kind, shape) for name, (kind, shape) in dense_tensors().items() if "blk.0." in name
)
EMBEDDING = size_of("q8_0", (1024, 32_000))
OUTPUT = EMBEDDING + 4096


@pytest.fixture(autouse=True)
def no_rearranging(monkeypatch: pytest.MonkeyPatch) -> None:
    rearrange(monkeypatch, {})


def rearrange(monkeypatch: pytest.MonkeyPatch, types: dict[str, int]) -> None:
    """Let the processor be one that rearranges *types*."""
    numbers = {GGML_TYPE_NUMBERS[name]: rows for name, rows in types.items()}
    monkeypatch.setattr(repack, "rows_by_type", lambda: numbers)


def gpu(name: str, kind: DeviceKind = "cuda", backend_name: str = "") -> Device:
    return Device(
        id=name,
        pool=name,
        kind=kind,
        name=name,
        total_bytes=GIB,
        free_bytes=GIB,
        backend_name=backend_name,
    )


def placed(
    tensors: Tensors,
    *headers: GGUFHeader,
    architecture: str = "llama",
    metadata: Metadata = NOTHING,
    kind: DeviceKind = "cuda",
    experts_moved: int = 0,
    **options: Any,
) -> Weights:
    """Return where the tensors of a file, and of further parts of it, lie.

    *experts_moved* is of how many layers the placement leaves the experts on the host.
    """
    given: dict[str, Any] = {"devices": (), "n_gpu_layers": -1, "split_mode": "layer"}
    fields = set(Placement.__struct_fields__) - {"n_cpu_moe"}  # what options say is tried
    given |= {name: options.pop(name) for name in fields if name in options}
    given["n_cpu_moe"] = experts_moved
    placement = Placement(**given)
    first = header(architecture, metadata, tensors)
    shape = read_hyperparameters(first)
    devices = [gpu("a", kind, "CUDA0"), gpu("b", kind)]
    layers = place_layers(placement, devices, shape.n_layer_all)
    load = LoadOptions(**{"use_mmap": False, **options})
    return place_weights([first, *headers], shape, layers, placement, devices, load)


def test_the_host_takes_every_tensor_once() -> None:
    weights = placed(dense_tensors())
    assert weights.bytes_by_device == {"host": EMBEDDING + OUTPUT + 4 * LAYER}
    assert weights.mapped_bytes == 0


def test_buffers_are_padded_by_tensor() -> None:
    tensors = {"blk.0.attn_norm.weight": ("f32", (9,)), "blk.1.attn_norm.weight": ("f32", (1,))}
    assert placed(tensors).bytes_by_device["host"] == 64 + 32
    on_gpu = placed(tensors, devices=("a",)).bytes_by_device
    assert on_gpu == {"a": 128 + 128, "host": 0}


def test_the_embedding_stays_on_the_host() -> None:
    weights = placed(dense_tensors(), devices=("a",))
    assert weights.bytes_by_device == {"a": OUTPUT + 4 * LAYER, "host": EMBEDDING}


@pytest.mark.parametrize(("n_gpu_layers", "on_gpu"), [(0, 0), (1, OUTPUT), (3, OUTPUT + 2 * LAYER)])
def test_some_layers_on_the_gpu(n_gpu_layers: int, on_gpu: int) -> None:
    found = placed(dense_tensors(), devices=("a",), n_gpu_layers=n_gpu_layers)
    whole = EMBEDDING + OUTPUT + 4 * LAYER
    assert found.bytes_by_device.get("a", 0) == on_gpu
    assert found.bytes_by_device["host"] == whole - on_gpu


def test_layers_are_shared_by_two_gpus() -> None:
    found = placed(dense_tensors(), devices=("a", "b"), tensor_split=(1, 1)).bytes_by_device
    assert found == {"a": 3 * LAYER, "b": LAYER + OUTPUT, "host": EMBEDDING}


# Embeddings that are the output matrix too


def test_a_tied_embedding_is_there_once_on_the_host() -> None:
    found = placed(dense_tensors(tied=True))
    assert found.bytes_by_device["host"] == OUTPUT + 4 * LAYER


def test_and_twice_with_the_output_on_the_gpu() -> None:
    found = placed(dense_tensors(tied=True), devices=("a",))
    assert found.bytes_by_device == {"a": OUTPUT + 4 * LAYER, "host": EMBEDDING}


def test_and_twice_on_the_host_if_one_of_them_is_rearranged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rearrange(monkeypatch, {"q8_0": 8})
    found = placed(dense_tensors(tied=True))
    assert found.bytes_by_device["host"] == EMBEDDING + OUTPUT + 4 * LAYER


@pytest.mark.parametrize(("kind", "copies"), [("q8_0", 1), ("q4_k", 2)])
def test_and_twice_if_a_gpu_could_not_look_up_its_rows(kind: str, copies: int) -> None:
    tensors: Tensors = {"token_embd.weight": (kind, (1024, 32_000))}
    found = placed(tensors, devices=("a",), n_gpu_layers=0)
    assert found.bytes_by_device["host"] == copies * size_of(kind, (1024, 32_000))
    mapped = placed(tensors, devices=("a",), n_gpu_layers=0, use_mmap=True)
    assert mapped.bytes_by_device["host"] == size_of(kind, (1024, 32_000))


def test_an_encoder_has_no_output_matrix() -> None:
    found = placed(dense_tensors(tied=True), architecture="bert", devices=("a",))
    assert found.bytes_by_device == {"a": 4096 + 4 * LAYER, "host": EMBEDDING}


# Tensors without a layer, and layers that are not loaded


def test_factors_of_positions_are_copied_to_each_device() -> None:
    tensors: Tensors = {"rope_freqs.weight": ("f32", (64,))}
    found = placed(tensors, devices=("a", "b"), tensor_split=(1, 1), n_gpu_layers=3)
    assert found.bytes_by_device == {"host": 256, "a": 256}
    both = placed(tensors, devices=("a", "b"), tensor_split=(1, 1))
    assert both.bytes_by_device == {"a": 256, "b": 256, "host": 0}


def test_but_only_for_layers_that_use_them() -> None:
    metadata: Metadata = {
        "attention.sliding_window": 64,
        "attention.sliding_window_pattern": (True, True, True, False),
    }
    tensors: Tensors = {"rope_freqs.weight": ("f32", (64,))}
    found = placed(
        tensors,
        architecture="gemma4",
        metadata=metadata,
        devices=("a", "b"),
        tensor_split=(1, 1),
    )
    assert found.bytes_by_device == {"b": 256, "host": 0}


@pytest.mark.parametrize(
    ("architecture", "device"), [("bert", "host"), ("lfm2", "a"), ("lfm2moe", "a")]
)
def test_the_norm_of_the_embedding_goes_with_the_first_layer(
    architecture: str, device: str
) -> None:
    tensors: Tensors = {"token_embd_norm.weight": ("f32", (1024,))}
    found = placed(tensors, architecture=architecture, devices=("a",), n_gpu_layers=1)
    assert found.bytes_by_device[device] == 4096


def test_layers_for_drafting_stay_in_the_file() -> None:
    tensors: Tensors = {
        "blk.3.attn_norm.weight": ("f32", (1024,)),
        "blk.99.attn_norm.weight": ("f32", (1024,)),
    }
    found = placed(tensors, metadata={"nextn_predict_layers": 1})
    assert found.bytes_by_device["host"] == 0


# Overrides

EXPERTS: Tensors = {
    "blk.0.ffn_up_exps.weight": ("q8_0", (1024, 512, 8)),
    "blk.1.ffn_up_exps.weight": ("q8_0", (1024, 512, 8)),
    "blk.1.ffn_up.weight": ("q8_0", (1024, 512)),
}
EXPERT = size_of("q8_0", (1024, 512, 8))


def test_experts_may_stay_on_the_host() -> None:
    found = placed(EXPERTS, devices=("a",), cpu_moe=True)
    assert found.bytes_by_device == {"a": EXPERT // 8, "host": 2 * EXPERT}
    some = placed(EXPERTS, devices=("a",), n_cpu_moe=1)
    assert some.bytes_by_device == {"a": EXPERT + EXPERT // 8, "host": EXPERT}


@pytest.mark.parametrize(("said", "moved"), [(0, 1), (1, 0), (1, 1)])
def test_a_placement_may_leave_experts_on_the_host(said: int, moved: int) -> None:
    some = placed(EXPERTS, devices=("a",), n_cpu_moe=said, experts_moved=moved)
    assert some.bytes_by_device == {"a": EXPERT + EXPERT // 8, "host": EXPERT}


@pytest.mark.parametrize(
    ("buffer", "device"),
    [("CUDA0", "a"), ("CUDA1", "b"), ("CPU", "host"), ("CUDA7", "host"), ("CUDA_Host", "host")],
)
def test_an_override_names_a_buffer(buffer: str, device: str) -> None:
    found = placed(
        {"blk.0.ffn_up.weight": ("q8_0", (1024, 512))},
        devices=("a", "b"),
        tensor_split=(1, 1),
        override_tensor=(f"ffn_up={buffer}", "ffn=CUDA0"),
    )
    assert found.bytes_by_device[device] == EXPERT // 8


def test_an_override_names_a_server_in_the_network() -> None:
    server = "RPC0[10.0.0.7:50052]"
    tensors: Tensors = {"blk.0.ffn_up.weight": ("q8_0", (1024, 512))}
    found = placed(tensors, devices=(server,), n_gpu_layers=0, override_tensor=(f"ffn={server}",))
    assert found.bytes_by_device[server] == EXPERT // 8


def test_an_override_holds_for_the_embedding_and_makes_a_copy_of_it_needless() -> None:
    found = placed(dense_tensors(tied=True), devices=("a",), override_tensor=("token_embd=CUDA0",))
    assert found.bytes_by_device == {"a": EMBEDDING + 4096 + 4 * LAYER, "host": 0}


def test_the_largest_layer_on_the_host_is_known() -> None:
    found = placed(EXPERTS, devices=("a",), cpu_moe=True)
    assert found.largest_host_layer_bytes == EXPERT
    assert placed(EXPERTS, devices=("a",)).largest_host_layer_bytes == 0


# Mapped files


def test_a_mapped_file_counts_from_its_first_tensor_to_its_last() -> None:
    tensors: Tensors = {
        "token_embd.weight": ("f32", (10, 10)),
        "blk.0.attn_norm.weight": ("f32", (1024,)),
        "position_embd.weight": ("f32", (10, 1)),
    }
    found = placed(tensors, devices=("a",), use_mmap=True, architecture="bert")
    assert found.bytes_by_device == {"a": 4096, "host": 416 + 4096 + 40}
    assert found.mapped_bytes == 416 + 4096 + 40


def test_what_is_rearranged_is_there_beside_the_mapped_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rearrange(monkeypatch, {"q8_0": 8})
    found = placed(dense_tensors(), use_mmap=True)
    # The last tensor that is not rearranged is a norm before the last layer's feed-forward.
    last = 3 * size_of("q8_0", (1024, 4096))
    assert found.mapped_bytes == EMBEDDING + OUTPUT + 4 * LAYER - last
    rearranged = EMBEDDING + 4 * (LAYER - 2 * 4096)
    assert found.bytes_by_device["host"] == found.mapped_bytes + rearranged


def test_each_part_of_a_model_is_mapped_by_itself() -> None:
    second = header(tensors={"blk.1.attn_norm.weight": ("f32", (10,))})
    found = placed({"blk.0.attn_norm.weight": ("f32", (10,))}, second, use_mmap=True)
    assert found.bytes_by_device == {"host": 80}


def test_metal_maps_what_it_computes_with() -> None:
    found = placed(dense_tensors(), devices=("a",), kind="metal", use_mmap=True)
    assert found.bytes_by_device == {"a": OUTPUT + 4 * LAYER, "host": EMBEDDING}
    assert found.mapped_bytes == EMBEDDING


def test_a_table_for_each_layer_is_mapped_if_it_is_large() -> None:
    large = size_of("q8_0", (65_536, 80_000))
    found = placed({"per_layer_token_embd.weight": ("q8_0", (65_536, 80_000))})
    assert found.bytes_by_device["host"] == found.mapped_bytes == large
    small = placed({"per_layer_token_embd.weight": ("q8_0", (1024, 1024))})
    assert small.mapped_bytes == 0


# GPUs


def test_cuda_pads_quantised_rows_once_a_tensor() -> None:
    tensors: Tensors = {"blk.0.attn_q.weight": ("q8_0", (96, 4))}
    size = size_of("q8_0", (96, 4))
    padding = (512 - 96) // 32 * 34
    for kind in ("cuda", "rocm"):
        found = placed(tensors, devices=("a",), kind=kind)
        assert found.bytes_by_device["a"] == size + padding + -(size + padding) % 128
    other = placed(tensors, devices=("a",), kind="vulkan")
    assert other.bytes_by_device["a"] == size + -size % 128


def test_rows_may_be_shared_instead_of_layers() -> None:
    tensors: Tensors = {
        "blk.0.attn_q.weight": ("f32", (1024, 64)),
        "blk.0.attn_norm.weight": ("f32", (1024,)),
    }
    found = placed(tensors, devices=("a", "b"), split_mode="row", tensor_split=(3, 1))
    assert found.bytes_by_device == {"a": 3 * 65_536 + 4096, "b": 65_536, "host": 0}


def test_tensors_of_unknown_types_count_nothing() -> None:
    described = header(tensors={"blk.0.attn_norm.weight": ("f32", (10,))})
    unknown = [type(each)(each.name, each.shape, 999, 0, None) for each in described.tensors]
    shape = read_hyperparameters(described)
    second = type(described)(
        version=3,
        metadata={},
        tensors=tuple(unknown),
        alignment=32,
        data_offset=0,
        file_bytes=0,
    )
    for placement in (Placement(), Placement(devices=("a",), n_gpu_layers=-1)):
        layers = place_layers(placement, [gpu("a")], shape.n_layer_all)
        found = place_weights([second], shape, layers, placement, [gpu("a")], LoadOptions())
        assert sum(found.bytes_by_device.values()) == 0
