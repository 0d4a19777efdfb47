"""Which context an instance gets: decided once, for the engine that makes it and the estimators."""

from __future__ import annotations

from msgspec import Struct

from llm_router_mw.types import LoadOptions

DEFAULT_N_CTX = 8192
"""Tokens of context at most, where nobody asked for a number."""
DEFAULT_N_UBATCH = 512
"""Tokens computed at once at most, where nobody asked for a number."""


class ContextShape(Struct, frozen=True, kw_only=True):
    """What llama.cpp is asked for; it rounds some of it up or down."""

    n_ctx: int
    n_batch: int
    n_ubatch: int
    n_seq_max: int
    kv_unified: bool
    n_outputs_max: int
    """Rows of one step that give logits or embeddings; 0 is all of them."""
    embeddings: bool


def context_shape(options: LoadOptions, n_ctx_train: int) -> ContextShape:
    """Return the context of a model that was trained with *n_ctx_train* tokens."""
    n_batch = max(options.n_batch, options.n_parallel)
    pooled = bool(options.pooling)
    if pooled:
        # llama.cpp ends the process if a batch of inputs to pool cannot be divided equally.
        n_batch += -n_batch % options.n_parallel
    return ContextShape(
        n_ctx=options.n_ctx or min(n_ctx_train, DEFAULT_N_CTX),
        n_batch=n_batch,
        # Pooling looks at whole inputs, so each must fit one physical batch, all rows output.
        n_ubatch=n_batch if pooled else min(n_batch, options.n_ubatch or DEFAULT_N_UBATCH),
        n_seq_max=options.n_parallel,
        kv_unified=options.kv_unified or pooled,
        n_outputs_max=0 if pooled else options.n_parallel,
        embeddings=pooled,
    )
