"""Bytes of the cache, by layer and device."""

from __future__ import annotations

from typing import Any

from llm_router_mw.memory.hyperparameters import read_hyperparameters
from llm_router_mw.memory.kv_cache import kv_cache_bytes
from llm_router_mw.memory.layers import Layers
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import LoadOptions
from tests.support.model_headers import NOTHING, Metadata, header

HOST_ONLY = Layers(gpus=(), visible=False, repeating=("host",) * 4, output="host")
TOKENS = 1024
WIDTH = 256
"""Elements of a token's keys, and of its values."""


def cache(
    architecture: str = "llama",
    metadata: Metadata = NOTHING,
    *,
    layers: Layers = HOST_ONLY,
    offloaded: bool = True,
    **options: Any,
) -> dict[str, int]:
    shape = read_hyperparameters(header(architecture, metadata))
    context = resolve_context(shape, LoadOptions(n_ctx=TOKENS, **options))
    return kv_cache_bytes(shape, context, layers, offloaded=offloaded)


def test_keys_and_values_of_all_layers() -> None:
    assert cache() == {"host": 4 * 2 * WIDTH * 2 * TOKENS}


def test_sequences_with_parts_of_their_own_share_the_length() -> None:
    assert cache(kv_unified=False, n_parallel=4) == cache()
    assert cache(kv_unified=False, n_parallel=8)["host"] == 2 * cache()["host"]


def test_quantised_types() -> None:
    found = cache(type_k="q8_0", type_v="q4_0")["host"]
    assert found == 4 * TOKENS * WIDTH // 32 * (34 + 18)


def test_each_layer_lies_on_its_device() -> None:
    layers = Layers(gpus=("a",), visible=True, repeating=("host", "a", "a", "a"), output="a")
    one = 2 * WIDTH * 2 * TOKENS
    assert cache(layers=layers) == {"host": one, "a": 3 * one}
    assert cache(layers=layers, offloaded=False) == {"host": 4 * one}


def test_without_flash_attention_all_values_are_as_wide_as_the_widest() -> None:
    metadata: Metadata = {"attention.head_count_kv": (4, 2, 0, 2)}
    keys = 8 * 64 * 2 * TOKENS
    assert cache("deci", metadata)["host"] == 2 * keys
    assert cache("deci", metadata, flash_attn="off")["host"] == keys + 4 * 4 * 64 * 2 * TOKENS


def test_a_latent_vector_is_kept_once() -> None:
    metadata: Metadata = {
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.value_length": 512,
        "attention.key_length_mla": 192,
        "attention.value_length_mla": 128,
    }
    assert cache("deepseek2", metadata) == {"host": 4 * 576 * 2 * TOKENS}


def test_sliding_layers_have_caches_of_their_own_length() -> None:
    metadata: Metadata = {"attention.sliding_window": 16}
    found = cache("gpt-oss", metadata, n_batch=100, n_parallel=1)["host"]
    assert found == 2 * 2 * WIDTH * 2 * (TOKENS + 256)
    assert cache("gpt-oss", metadata, swa_full=True) == cache()


def test_models_without_a_cache() -> None:
    assert cache("bert") == {}
    assert cache("mamba2") == {}


def test_layers_that_share_have_none_of_their_own() -> None:
    assert cache("gemma4", {"attention.shared_kv_layers": 1})["host"] == cache()["host"] * 3 // 4
