"""The context as llama.cpp makes it of what it is asked for: padded, rounded and clipped.

Follows the constructor of ``llama_context``.
"""

from __future__ import annotations

from msgspec import Struct

from llm_router_mw.context_shape import context_shape
from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGML_TYPES
from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.types import LoadOptions

CELLS_STEP = 256
"""Contexts are padded to multiples of so many tokens."""


class ResolvedContext(Struct, frozen=True, kw_only=True):
    """Sizes of a context, in tokens or rows."""

    n_ctx: int
    """Of all sequences together."""
    n_ctx_seq: int
    """Cells of one stream's cache."""
    n_ctx_swa: int
    """The same for layers with a sliding window."""
    n_stream: int
    """Caches side by side: 1 if all sequences share one."""
    n_seq_max: int
    n_batch: int
    n_tokens: int
    """Of the largest graph."""
    n_outputs: int
    """Rows of it that become logits."""
    has_embeddings: bool
    is_pooled: bool
    has_flash_attention: bool
    pads_values: bool
    """Whether all layers' values are stored as wide as the widest: without flash attention."""
    type_k: int
    type_v: int


def resolve_context(
    model: Hyperparameters, options: LoadOptions, n_ctx: int = 0, *, flash: bool | None = None
) -> ResolvedContext:
    """Return the context of *model*; a *n_ctx* wins over that of *options*.

    *flash* says whether flash attention works here; None takes it for granted.
    """
    shape = context_shape(options, model.n_ctx_train or CELLS_STEP)
    asked = n_ctx or shape.n_ctx
    total = _padded(asked)
    per_sequence = total
    if not shape.kv_unified:
        per_sequence = max(CELLS_STEP, _padded(total // shape.n_seq_max))
        total = per_sequence * shape.n_seq_max
    # llama.cpp clips the batch before it pads the context.
    n_batch = min(asked, shape.n_batch) if model.is_causal else shape.n_batch
    n_ubatch = min(n_batch, shape.n_ubatch)
    n_outputs_max = n_batch if not shape.n_outputs_max else shape.n_outputs_max
    n_tokens = min(total, n_ubatch)
    is_off = options.flash_attn == "off" or not model.architecture.has_flash_attention
    window = model.n_swa * (shape.n_seq_max if shape.kv_unified else 1) + n_ubatch
    return ResolvedContext(
        n_ctx=total,
        n_ctx_seq=per_sequence,
        n_ctx_swa=per_sequence if options.swa_full else _padded(min(per_sequence, window)),
        n_stream=1 if shape.kv_unified else shape.n_seq_max,
        n_seq_max=shape.n_seq_max,
        n_batch=n_batch,
        n_tokens=n_tokens + -n_tokens % shape.n_seq_max,
        n_outputs=min(n_tokens, n_outputs_max),
        has_embeddings=shape.embeddings,
        is_pooled=options.pooling not in ("", "none"),
        has_flash_attention=not is_off and flash is not False,
        pads_values=is_off,
        type_k=GGML_TYPE_NUMBERS[options.type_k],
        type_v=GGML_TYPE_NUMBERS[options.type_v],
    )


def row_bytes(ggml_type: int, n_elements: int) -> int:
    """Return the bytes of a row of so many elements."""
    kind = GGML_TYPES[ggml_type]
    return n_elements * kind.block_bytes // kind.block_size


def _padded(tokens: int) -> int:
    return tokens + -tokens % CELLS_STEP
