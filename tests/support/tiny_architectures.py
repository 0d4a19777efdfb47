"""Tiny models of many architectures that llama.cpp really loads, with random weights.

All speak as ``write_tiny_llama``'s default does: ASCII text without an end. Each is well under a
megabyte, and the same arguments give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

from tests.support.tiny_vocabulary import FIRST_PIECE, Vocabulary, make_vocabulary

SLIDING_WINDOW = 32
"""Tokens that the sliding layers of ``gemma3`` look back."""
_N_EMBD, _N_FF, _N_HEAD = 64, 128, 4
_HEAD_SIZE = _N_EMBD // _N_HEAD
_N_EXPERT, _N_EXPERT_USED, _EXPERT_FF = 4, 2, 32
_CONVOLUTION, _STATE = 4, 16
_LOUDNESS = 2.0
"""Weight of what the layers add, against the embedding of the last token."""


class _Weights:
    """Adds random tensors to a file.

    Dimension 0 of the residual stream is kept constant, as in ``write_tiny_llama``: column 0 of the
    output matrix is a bias with which the tokens that show no text are ruled out.
    """

    def __init__(self, writer: GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._rng = np.random.default_rng(seed)

    def add(self, name: str, values: Any) -> None:
        self._writer.add_tensor(name, np.ascontiguousarray(values, np.float32))

    def ones(self, name: str, *shape: int) -> None:
        self.add(name, np.ones(shape))

    def uniform(self, name: str, shape: tuple[int, ...], low: float, high: float) -> None:
        self.add(name, self._rng.uniform(low, high, shape))

    def matrix(self, name: str, *shape: int, gain: float = 1.0) -> None:
        """Add a matrix (or a stack of them) of so many rows and columns."""
        self.add(name, self._random(shape, gain))

    def into_residual(self, name: str, *shape: int) -> None:
        """Add a matrix whose product is added to the residual stream."""
        values = self._random(shape, _LOUDNESS)
        values[..., 0, :] = 0.0
        self.add(name, values)

    def vocabulary(self, vocabulary: Vocabulary) -> None:
        """Add the embedding and the output matrix."""
        size = len(vocabulary.texts)
        embedding = self._rng.standard_normal((size, _N_EMBD))
        embedding[:, 0] = 1.0
        # Quiet, so that the noise of a cache in half precision stays below what tests call a tie.
        output = self._random((size, _N_EMBD), 0.5)
        output[:, 0] = 0.0
        output[:FIRST_PIECE, 0] = -1000.0
        self.add("token_embd.weight", embedding)
        self.add("output.weight", output)
        self.ones("output_norm.weight", _N_EMBD)

    def _random(self, shape: tuple[int, ...], gain: float) -> Any:
        return self._rng.standard_normal(shape) * gain / np.sqrt(shape[-1])


def _attention(weights: _Weights, block: str, *, n_head_kv: int = 2, gated: bool = False) -> None:
    n_query = _N_EMBD * (2 if gated else 1)
    weights.matrix(f"{block}.attn_q.weight", n_query, _N_EMBD, gain=1.5)
    weights.matrix(f"{block}.attn_k.weight", n_head_kv * _HEAD_SIZE, _N_EMBD, gain=1.5)
    weights.matrix(f"{block}.attn_v.weight", n_head_kv * _HEAD_SIZE, _N_EMBD)
    weights.into_residual(f"{block}.attn_output.weight", _N_EMBD, _N_EMBD)


def _query_norms(weights: _Weights, block: str) -> None:
    # Larger than one, or attention would hardly tell one token from another.
    weights.add(f"{block}.attn_q_norm.weight", np.full(_HEAD_SIZE, 1.5))
    weights.add(f"{block}.attn_k_norm.weight", np.full(_HEAD_SIZE, 1.5))


def _feed_forward(weights: _Weights, block: str, norm: str = "ffn_norm") -> None:
    weights.ones(f"{block}.{norm}.weight", _N_EMBD)
    weights.matrix(f"{block}.ffn_gate.weight", _N_FF, _N_EMBD)
    weights.matrix(f"{block}.ffn_up.weight", _N_FF, _N_EMBD)
    weights.into_residual(f"{block}.ffn_down.weight", _N_EMBD, _N_FF)


def _experts(weights: _Weights, block: str) -> None:
    weights.ones(f"{block}.ffn_norm.weight", _N_EMBD)
    weights.matrix(f"{block}.ffn_gate_inp.weight", _N_EXPERT, _N_EMBD)
    weights.matrix(f"{block}.ffn_gate_exps.weight", _N_EXPERT, _EXPERT_FF, _N_EMBD)
    weights.matrix(f"{block}.ffn_up_exps.weight", _N_EXPERT, _EXPERT_FF, _N_EMBD)
    weights.into_residual(f"{block}.ffn_down_exps.weight", _N_EXPERT, _N_EMBD, _EXPERT_FF)


def _recurrence_of_mamba(weights: _Weights, block: str) -> None:
    n_inner, rank = 2 * _N_EMBD, 4
    weights.matrix(f"{block}.ssm_in.weight", 2 * n_inner, _N_EMBD)
    _convolution(weights, block, n_inner, bias=True)
    # Louder, or what the state remembers would drown in what the token itself says.
    weights.matrix(f"{block}.ssm_x.weight", rank + 2 * _STATE, n_inner, gain=4.0)
    weights.matrix(f"{block}.ssm_dt.weight", n_inner, rank)
    weights.uniform(f"{block}.ssm_dt.bias", (n_inner,), -2.0, 0.0)
    weights.uniform(f"{block}.ssm_a", (n_inner, _STATE), -0.2, -0.01)
    weights.ones(f"{block}.ssm_d", n_inner)
    weights.into_residual(f"{block}.ssm_out.weight", _N_EMBD, n_inner)


def _recurrence_of_mamba2(weights: _Weights, block: str) -> None:
    n_inner, n_heads = 2 * _N_EMBD, 8
    n_convolved = n_inner + 2 * _STATE
    weights.matrix(f"{block}.ssm_in.weight", n_inner + n_convolved + n_heads, _N_EMBD)
    _convolution(weights, block, n_convolved, bias=True)
    weights.uniform(f"{block}.ssm_dt.bias", (n_heads,), -4.0, -2.0)
    weights.uniform(f"{block}.ssm_a", (n_heads, 1), -16.0, -1.0)
    weights.ones(f"{block}.ssm_d", n_heads, 1)
    weights.ones(f"{block}.ssm_norm.weight", 1, n_inner)
    weights.into_residual(f"{block}.ssm_out.weight", _N_EMBD, n_inner)


def _recurrence_of_qwen35(weights: _Weights, block: str) -> None:
    n_keys, n_heads = 2 * _STATE, 4
    n_values = n_heads * _STATE
    weights.matrix(f"{block}.attn_qkv.weight", 2 * n_keys + n_values, _N_EMBD)
    weights.matrix(f"{block}.attn_gate.weight", n_values, _N_EMBD)
    _convolution(weights, block, 2 * n_keys + n_values, bias=False)
    weights.uniform(f"{block}.ssm_dt.bias", (n_heads,), -4.0, -2.0)
    weights.uniform(f"{block}.ssm_a", (n_heads,), -4.0, -1.0)
    weights.matrix(f"{block}.ssm_beta.weight", n_heads, _N_EMBD)
    weights.matrix(f"{block}.ssm_alpha.weight", n_heads, _N_EMBD)
    weights.ones(f"{block}.ssm_norm.weight", _STATE)
    weights.into_residual(f"{block}.ssm_out.weight", _N_EMBD, n_values)


def _convolution(weights: _Weights, block: str, size: int, *, bias: bool) -> None:
    weights.uniform(f"{block}.ssm_conv1d.weight", (size, _CONVOLUTION), -0.5, 0.5)
    if bias:
        weights.uniform(f"{block}.ssm_conv1d.bias", (size,), -0.1, 0.1)


def _describe_attention(writer: GGUFWriter, n_head_kv: int | list[int] = 2) -> None:
    writer.add_head_count(_N_HEAD)
    writer.add_head_count_kv(n_head_kv)
    writer.add_key_length(_HEAD_SIZE)
    writer.add_value_length(_HEAD_SIZE)
    writer.add_rope_dimension_count(_HEAD_SIZE)


def _describe_recurrence(
    writer: GGUFWriter, *, n_inner: int, rank: int, n_group: int | None = None
) -> None:
    writer.add_ssm_conv_kernel(_CONVOLUTION)
    writer.add_ssm_inner_size(n_inner)
    writer.add_ssm_state_size(_STATE)
    writer.add_ssm_time_step_rank(rank)
    if n_group is not None:
        writer.add_ssm_group_count(n_group)


def _llama(writer: GGUFWriter, weights: _Weights) -> None:
    """Dense."""
    writer.add_block_count(2)
    _describe_attention(writer, _N_HEAD)
    for block in ("blk.0", "blk.1"):
        weights.ones(f"{block}.attn_norm.weight", _N_EMBD)
        _attention(weights, block, n_head_kv=_N_HEAD)
        _feed_forward(weights, block)


def _qwen3(writer: GGUFWriter, weights: _Weights) -> None:
    """Dense, with grouped and normalised queries."""
    writer.add_block_count(2)
    _describe_attention(writer)
    for block in ("blk.0", "blk.1"):
        weights.ones(f"{block}.attn_norm.weight", _N_EMBD)
        _attention(weights, block)
        _query_norms(weights, block)
        _feed_forward(weights, block)


def _qwen3moe(writer: GGUFWriter, weights: _Weights) -> None:
    """A mixture of experts."""
    writer.add_block_count(2)
    _describe_attention(writer)
    writer.add_expert_count(_N_EXPERT)
    writer.add_expert_used_count(_N_EXPERT_USED)
    writer.add_expert_feed_forward_length(_EXPERT_FF)
    for block in ("blk.0", "blk.1"):
        weights.ones(f"{block}.attn_norm.weight", _N_EMBD)
        _attention(weights, block)
        _query_norms(weights, block)
        _experts(weights, block)


def _gemma3(writer: GGUFWriter, weights: _Weights) -> None:
    """A sliding window in two of three layers."""
    writer.add_block_count(3)
    _describe_attention(writer)
    writer.add_sliding_window(SLIDING_WINDOW)
    writer.add_sliding_window_pattern(3)
    # What is normalised after a layer is added as it is, so the constant must not be in it.
    after = np.full(_N_EMBD, _LOUDNESS)
    after[0] = 0.0
    for block in ("blk.0", "blk.1", "blk.2"):
        weights.ones(f"{block}.attn_norm.weight", _N_EMBD)
        _attention(weights, block)
        _query_norms(weights, block)
        weights.add(f"{block}.post_attention_norm.weight", after)
        _feed_forward(weights, block)
        weights.add(f"{block}.post_ffw_norm.weight", after)


def _deepseek2(writer: GGUFWriter, weights: _Weights) -> None:
    """Multi-head latent attention; experts from the second layer on."""
    rank, rope, plain, value = 32, 8, 16, 16
    writer.add_block_count(2)
    writer.add_head_count(_N_HEAD)
    writer.add_head_count_kv(1)
    writer.add_key_length(rank + rope)
    writer.add_value_length(rank)
    writer.add_key_length_mla(plain + rope)
    writer.add_value_length_mla(value)
    writer.add_rope_dimension_count(rope)
    writer.add_q_lora_rank(rank)
    writer.add_kv_lora_rank(rank)
    writer.add_leading_dense_block_count(1)
    writer.add_expert_count(_N_EXPERT)
    writer.add_expert_used_count(_N_EXPERT_USED)
    writer.add_expert_feed_forward_length(_EXPERT_FF)
    writer.add_expert_shared_count(1)
    for block in ("blk.0", "blk.1"):
        weights.ones(f"{block}.attn_norm.weight", _N_EMBD)
        weights.matrix(f"{block}.attn_q_a.weight", rank, _N_EMBD)
        weights.ones(f"{block}.attn_q_a_norm.weight", rank)
        weights.matrix(f"{block}.attn_q_b.weight", _N_HEAD * (plain + rope), rank, gain=1.5)
        weights.matrix(f"{block}.attn_kv_a_mqa.weight", rank + rope, _N_EMBD, gain=1.5)
        weights.ones(f"{block}.attn_kv_a_norm.weight", rank)
        weights.matrix(f"{block}.attn_k_b.weight", _N_HEAD, rank, plain, gain=1.5)
        weights.matrix(f"{block}.attn_v_b.weight", _N_HEAD, value, rank)
        weights.into_residual(f"{block}.attn_output.weight", _N_EMBD, _N_HEAD * value)
    _feed_forward(weights, "blk.0")
    _experts(weights, "blk.1")
    weights.matrix("blk.1.ffn_gate_shexp.weight", _EXPERT_FF, _N_EMBD)
    weights.matrix("blk.1.ffn_up_shexp.weight", _EXPERT_FF, _N_EMBD)
    weights.into_residual("blk.1.ffn_down_shexp.weight", _N_EMBD, _EXPERT_FF)


def _mamba(writer: GGUFWriter, weights: _Weights) -> None:
    """Recurrent throughout."""
    writer.add_block_count(2)
    _describe_recurrence(writer, n_inner=2 * _N_EMBD, rank=4)
    for block in ("blk.0", "blk.1"):
        weights.ones(f"{block}.attn_norm.weight", _N_EMBD)
        _recurrence_of_mamba(weights, block)


def _granitehybrid(writer: GGUFWriter, weights: _Weights) -> None:
    """Mamba 2 layers around one with attention."""
    writer.add_block_count(3)
    # A layer without heads is a recurrent one.
    _describe_attention(writer, [0, 2, 0])
    writer.add_rope_scaling_finetuned(False)
    _describe_recurrence(writer, n_inner=2 * _N_EMBD, rank=8, n_group=1)
    for block in ("blk.0", "blk.1", "blk.2"):
        weights.ones(f"{block}.attn_norm.weight", _N_EMBD)
        if block == "blk.1":
            _attention(weights, block)
        else:
            _recurrence_of_mamba2(weights, block)
        _feed_forward(weights, block)


def _qwen35(writer: GGUFWriter, weights: _Weights) -> None:
    """Linear attention (a gated delta net), and one layer with full attention."""
    writer.add_block_count(3)
    _describe_attention(writer)
    writer.add_rope_dimension_sections([4, 2, 2, 0])
    writer.add_full_attention_interval(3)
    _describe_recurrence(writer, n_inner=4 * _STATE, rank=4, n_group=2)
    for block in ("blk.0", "blk.1", "blk.2"):
        weights.ones(f"{block}.attn_norm.weight", _N_EMBD)
        if block == "blk.2":
            _attention(weights, block, gated=True)
            _query_norms(weights, block)
        else:
            _recurrence_of_qwen35(weights, block)
        _feed_forward(weights, block, norm="post_attention_norm")


_BUILDERS: dict[str, Callable[[GGUFWriter, _Weights], None]] = {
    "llama": _llama,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3moe,
    "gemma3": _gemma3,
    "deepseek2": _deepseek2,
    "mamba": _mamba,
    "granitehybrid": _granitehybrid,
    "qwen35": _qwen35,
}
ARCHITECTURES = tuple(_BUILDERS)
"""What can be written: dense, experts, sliding window, latent attention, recurrent, two hybrids."""


def write_tiny(
    path: Path,
    architecture: str,
    *,
    seed: int = 0,
    n_ctx_train: int = 2048,
    rank_template: str | None = None,
) -> Path:
    """Write a model of *architecture*, one of ``ARCHITECTURES``, and return its path.

    With *rank_template* it is a reranker with a head of two classes (``qwen3`` can be one); an
    empty one leaves the template out.
    """
    writer = GGUFWriter(path, architecture)
    writer.add_name(f"tiny-{architecture}")
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(_N_EMBD)
    writer.add_feed_forward_length(_N_FF)
    writer.add_layer_norm_rms_eps(1e-6)
    vocabulary = make_vocabulary()
    vocabulary.write_to(writer)
    weights = _Weights(writer, seed)
    weights.vocabulary(vocabulary)
    _BUILDERS[architecture](writer, weights)
    if rank_template is not None:
        writer.add_classifier_output_labels(["yes", "no"])
        weights.matrix("cls.output.weight", 2, _N_EMBD)
        if rank_template:
            writer.add_chat_template([{"name": "rerank", "template": rank_template}])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
