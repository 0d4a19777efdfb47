"""The context as llama.cpp rounds it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.gguf import GGML_TYPE_NUMBERS
from llm_router_mw.memory.hyperparameters import read_hyperparameters
from llm_router_mw.memory.resolved_context import ResolvedContext, resolve_context, row_bytes
from llm_router_mw.types import LoadOptions
from tests.support.model_headers import NOTHING, Metadata, header

WINDOWED: Metadata = {"attention.sliding_window": 1024}


def resolve(
    n_ctx: int = 0,
    *,
    architecture: str = "llama",
    metadata: Metadata = NOTHING,
    flash: bool | None = None,
    **options: Any,
) -> ResolvedContext:
    shape = read_hyperparameters(header(architecture, metadata))
    return resolve_context(shape, LoadOptions(**options), n_ctx, flash=flash)


@pytest.mark.parametrize(("asked", "n_ctx"), [(0, 8192), (1, 256), (256, 256), (777, 1024)])
def test_the_length_is_a_multiple_of_256(asked: int, n_ctx: int) -> None:
    context = resolve(n_ctx=asked)
    assert (context.n_ctx, context.n_ctx_seq, context.n_stream) == (n_ctx, n_ctx, 1)


def test_a_placement_wins_over_the_options() -> None:
    assert resolve(n_ctx=512).n_ctx == 512
    assert resolve(1024, n_parallel=2).n_ctx == 1024


@pytest.mark.parametrize(
    ("asked", "n_parallel", "n_ctx", "per_sequence"),
    [(512, 4, 1024, 256), (4096, 3, 4608, 1536), (4096, 4, 4096, 1024), (1, 8, 2048, 256)],
)
def test_separate_parts_are_rounded_up_each(
    asked: int, n_parallel: int, n_ctx: int, per_sequence: int
) -> None:
    context = resolve(n_ctx=asked, n_parallel=n_parallel, kv_unified=False)
    assert (context.n_ctx, context.n_ctx_seq) == (n_ctx, per_sequence)
    assert context.n_stream == context.n_seq_max == n_parallel


def test_the_batch_is_no_longer_than_the_context_that_was_asked_for() -> None:
    context = resolve(n_ctx=300, n_batch=2048, n_ubatch=1024)
    assert (context.n_ctx, context.n_batch, context.n_tokens) == (512, 300, 300)


def test_unless_all_tokens_are_seen_at_once() -> None:
    context = resolve(
        n_ctx=256, architecture="bert", metadata={"attention.causal": False}, n_batch=512
    )
    assert (context.n_batch, context.n_tokens) == (512, 256)


def test_the_largest_graph_has_equal_parts_for_all_sequences() -> None:
    context = resolve(n_ubatch=512, n_parallel=3)
    assert (context.n_tokens, context.n_outputs) == (513, 3)


def test_all_rows_are_results_where_they_are_pooled() -> None:
    context = resolve(pooling="mean", n_batch=256)
    assert (context.n_outputs, context.has_embeddings, context.is_pooled) == (256, True, True)
    assert not resolve(pooling="none").is_pooled
    assert resolve().n_outputs == 4


@pytest.mark.parametrize(
    ("options", "cells"),
    [
        ({"n_ctx": 65_536}, 1024 * 4 + 512),
        ({"n_ctx": 65_536, "n_ubatch": 100}, 1024 * 4 + 256),
        ({"n_ctx": 65_536, "kv_unified": False}, 1024 + 512),
        ({"n_ctx": 1024}, 1024),
        ({"n_ctx": 65_536, "swa_full": True}, 65_536),
    ],
)
def test_sliding_layers_keep_their_windows_and_a_batch(options: dict[str, Any], cells: int) -> None:
    assert resolve(architecture="gemma3", metadata=WINDOWED, **options).n_ctx_swa == cells


@pytest.mark.parametrize(
    ("flash_attn", "works", "has", "pads"),
    [
        ("auto", None, True, False),
        ("auto", False, False, False),
        ("on", None, True, False),
        ("off", None, False, True),
    ],
)
def test_flash_attention(flash_attn: str, works: bool | None, has: bool, pads: bool) -> None:
    context = resolve(flash=works, flash_attn=flash_attn)
    assert (context.has_flash_attention, context.pads_values) == (has, pads)


@pytest.mark.parametrize(
    ("name", "n_bytes"),
    [("f32", 4096), ("f16", 2048), ("q8_0", 1088), ("q4_0", 576), ("q5_1", 768)],
)
def test_rows_of_a_cache(name: str, n_bytes: int) -> None:
    assert row_bytes(GGML_TYPE_NUMBERS[name], 1024) == n_bytes
