"""How much of the largest graph of a model is in memory at once, phase by phase.

ggml gives tensors offsets by their lifetimes, first fit, so the buffer is as large as the hungriest
phase of a layer. The formulas give what is alive in each, in 4-byte elements per token; they were
fitted to dry runs of twenty models of fifteen architectures.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from llm_router_mw.gguf import GGML_TYPE_NUMBERS
from llm_router_mw.memory.feed_forward import FeedForward, Gate
from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.resolved_context import ResolvedContext, row_bytes

_FLOAT_BYTES, _HALF_BYTES = 4, 2
_F32 = GGML_TYPE_NUMBERS["f32"]
_HALVES = (GGML_TYPE_NUMBERS["f16"], GGML_TYPE_NUMBERS["bf16"])
_QUERY_HEADS_PER_LATENT = 8


class Need(Struct, frozen=True):
    """Bytes of one phase: probably, and at most as far as was seen."""

    expected: int
    most: int


def mask_bytes(model: Hyperparameters, context: ResolvedContext) -> int:
    """Return the bytes of the masks that say which tokens see which: they live through all."""
    element = _HALF_BYTES if context.has_flash_attention else _FLOAT_BYTES
    if model.architecture.is_encoder:
        kinds = 2 if any(model.is_swa) else 1
        return kinds * context.n_tokens**2 * element
    cells = context.n_ctx_seq if _has(model, swa=False) else 0
    cells += context.n_ctx_swa if _has(model, swa=True) else 0
    return context.n_tokens * element * cells


def logits_need(model: Hyperparameters, context: ResolvedContext) -> Need:
    """Return what turning the last layer into scores of all tokens takes."""
    facts = model.architecture
    if not facts.has_output or (context.has_embeddings and not facts.scores_embeddings):
        return Need(0, 0)
    rows, n_embd = context.n_outputs, model.n_embd
    return Need(
        _FLOAT_BYTES * rows * (model.n_vocab + 2 * n_embd),
        _FLOAT_BYTES * rows * (model.n_vocab + 7 * n_embd),
    )


def layer_needs(model: Hyperparameters, context: ResolvedContext, layer: int) -> Iterator[Need]:
    """Yield what the phases of *layer* take, the masks aside."""
    yield from memory_needs(model, context, layer)
    yield from network_needs(model, context, layer)


def memory_needs(model: Hyperparameters, context: ResolvedContext, layer: int) -> Iterator[Need]:
    """Yield what the phases take that look at the cache or the state of *layer*."""
    if model.has_kv[layer] or model.architecture.is_encoder or not model.is_recurrent[layer]:
        yield _attention(model, context, layer)
    if model.is_recurrent[layer]:
        yield _recurrence(model, context)


def network_needs(model: Hyperparameters, context: ResolvedContext, layer: int) -> Iterator[Need]:
    """Yield what the feed-forward networks of *layer* take."""
    network = model.feed_forward[layer]
    if network.n_ff_exp:
        yield _experts(model, context, network, model.n_expert_used[layer])
    if network.n_ff:
        yield _feed_forward(model, context, network)


def _has(model: Hyperparameters, *, swa: bool) -> bool:
    return any(
        has_kv and each == swa for has_kv, each in zip(model.has_kv, model.is_swa, strict=True)
    )


def _cells(model: Hyperparameters, context: ResolvedContext, layer: int) -> int:
    """Return the cells that one token may look at."""
    if model.architecture.is_encoder:
        return context.n_tokens
    return context.n_ctx_swa if model.is_swa[layer] else context.n_ctx_seq


def _attention(model: Hyperparameters, context: ResolvedContext, layer: int) -> Need:
    tokens, n_embd, heads = context.n_tokens, model.n_embd, model.n_head[layer]
    cells = _cells(model, context, layer)
    copies = _converted_bytes(model, context, layer, cells * context.n_stream)
    if model.is_mla:
        per_token = (
            model.head_k[layer] * heads
            + 2 * model.n_lora_kv * heads
            + model.head_k_mla * heads // _QUERY_HEADS_PER_LATENT
            + n_embd
        )
        most = per_token + 2 * n_embd
    else:
        query = model.head_k[layer] * heads
        query *= 2 if model.architecture.has_gated_query else 1
        keys_values = model.width_k(layer) + model.width_v(layer)
        per_token = 3 * n_embd + 2 * query + keys_values
        most = per_token + 2 * keys_values + n_embd
    extra = model.architecture.n_streams * n_embd
    extra += 0 if context.has_flash_attention else cells * heads
    per_token, most = per_token + extra, most + extra
    return Need(_FLOAT_BYTES * tokens * per_token + copies, _FLOAT_BYTES * tokens * most + copies)


def _converted_bytes(
    model: Hyperparameters, context: ResolvedContext, layer: int, cells: int
) -> int:
    """Return the copies of a whole cache that its layer makes: in half precision, or turned."""
    if model.architecture.is_encoder or not model.has_kv[layer]:
        return 0
    width_k, width_v = model.width_k(layer), model.width_v(layer)
    if model.is_mla:
        width_v = model.n_lora_kv
        if not context.has_flash_attention:
            return row_bytes(context.type_k, width_v) * cells
    if not context.has_flash_attention:
        return 0
    keys = width_k if context.type_k == _F32 else 0
    values = width_v if (context.type_k if model.is_mla else context.type_v) == _F32 else 0
    return _HALF_BYTES * cells * (keys + values)


def _recurrence(model: Hyperparameters, context: ResolvedContext) -> Need:
    inner, n_embd = model.inner_size, model.n_embd
    convolved = inner + 2 * model.n_group * model.state_size
    states = context.n_seq_max * (model.n_embd_r + model.n_embd_s)
    if model.architecture.recurrence == "interval":  # a gated delta net
        per_token = 2 * (n_embd + inner + convolved + model.time_step_rank)
        most = per_token + n_embd + 2 * convolved
        states += context.n_seq_max * model.n_embd_s
    elif inner:
        per_token = 3 * n_embd + 2 * inner + 3 * convolved + 2 * model.time_step_rank
        most = per_token + convolved
    elif model.n_embd_s:  # RWKV and its like
        per_token, most = 20 * n_embd, 28 * n_embd
    else:  # a short convolution
        per_token, most = 10 * n_embd, 12 * n_embd
    tokens = context.n_tokens
    return Need(
        _FLOAT_BYTES * (tokens * per_token + states), _FLOAT_BYTES * (tokens * most + 2 * states)
    )


def _feed_forward(model: Hyperparameters, context: ResolvedContext, network: FeedForward) -> Need:
    n_embd, n_ff = model.n_embd, network.n_ff
    tokens = _FLOAT_BYTES * context.n_tokens
    streams = model.architecture.n_streams * n_embd
    most = streams + 5 * n_embd + 3 * n_ff
    if model.architecture.is_encoder and not model.architecture.has_output:
        inner = n_ff if network.gate is Gate.NONE else 5 * n_ff // 2
        return Need(tokens * (3 * n_embd + inner), tokens * most)
    # The values' type decides whether a block stays free that the next layer fits into.
    residuals = 4 if context.type_v in _HALVES and network.gate is not Gate.FUSED else 3
    inner = n_ff if network.gate is Gate.NONE else 3 * n_ff
    return Need(tokens * (streams + residuals * n_embd + inner), tokens * most)


def _experts(
    model: Hyperparameters, context: ResolvedContext, network: FeedForward, used: int
) -> Need:
    n_embd, n_ff = model.n_embd, network.n_ff_exp
    tokens = _FLOAT_BYTES * context.n_tokens
    shared = 3 if network.n_ff_shared else 0
    residuals = 3 if context.type_v in _HALVES else 2
    # While the experts compute, and while what they gave is weighed and added up.
    computing = 3 * n_ff * used + n_embd
    adding = 2 * n_embd * used + n_ff * used
    return Need(
        tokens * (max(computing, adding + shared * n_embd) + residuals * n_embd),
        tokens * (max(computing, adding + n_ff * used) + (5 + shared) * n_embd),
    )
