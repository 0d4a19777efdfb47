"""The context that an instance gets."""

from __future__ import annotations

import pytest

from llm_router_mw.context_shape import ContextShape, context_shape
from llm_router_mw.types import LoadOptions


def test_a_context_for_text() -> None:
    assert context_shape(LoadOptions(), 131_072) == ContextShape(
        n_ctx=8192,
        n_batch=512,
        n_ubatch=512,
        n_seq_max=4,
        kv_unified=True,
        n_outputs_max=4,
        embeddings=False,
    )


def test_a_context_for_embeddings_takes_whole_inputs_at_once() -> None:
    options = LoadOptions(pooling="mean", n_batch=2048, n_ubatch=64, kv_unified=False)
    assert context_shape(options, 512) == ContextShape(
        n_ctx=512,
        n_batch=2048,
        n_ubatch=2048,
        n_seq_max=4,
        kv_unified=True,
        n_outputs_max=0,
        embeddings=True,
    )


@pytest.mark.parametrize(("asked", "trained", "n_ctx"), [(0, 2048, 2048), (65_536, 2048, 65_536)])
def test_the_length_is_what_was_asked_for_or_fits_the_model(
    asked: int, trained: int, n_ctx: int
) -> None:
    assert context_shape(LoadOptions(n_ctx=asked), trained).n_ctx == n_ctx


def test_a_batch_has_a_row_for_each_sequence() -> None:
    shape = context_shape(LoadOptions(n_batch=2, n_parallel=8), 512)
    assert (shape.n_batch, shape.n_ubatch) == (8, 8)


@pytest.mark.parametrize(("n_batch", "n_parallel", "expected"), [(1000, 16, 1008), (512, 4, 512)])
def test_a_batch_to_pool_has_equal_parts_for_all_sequences(
    n_batch: int, n_parallel: int, expected: int
) -> None:
    options = LoadOptions(n_batch=n_batch, n_parallel=n_parallel, pooling="mean")
    assert context_shape(options, 512).n_batch == context_shape(options, 512).n_ubatch == expected
    plain = LoadOptions(n_batch=n_batch, n_parallel=n_parallel)
    assert context_shape(plain, 512).n_batch == n_batch


@pytest.mark.parametrize(("asked", "n_ubatch"), [(0, 512), (64, 64), (1024, 1024), (9999, 4096)])
def test_no_more_is_computed_at_once_than_a_batch_holds(asked: int, n_ubatch: int) -> None:
    assert context_shape(LoadOptions(n_batch=4096, n_ubatch=asked), 512).n_ubatch == n_ubatch
