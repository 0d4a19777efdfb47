"""A model whose layers are mostly recurrent: Granite 4's hybrid architecture (Mamba 2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFWriter

from benchmarks.models.file import LOGIT_DEVIATION, save
from benchmarks.models.vocabulary import byte_pair_vocabulary
from benchmarks.models.weights import WeightWriter

_CONVOLUTION = 4


@dataclass(frozen=True)
class HybridShape:
    """Sizes of a model; the defaults are Granite-4.0-H-350M's."""

    n_layer: int = 32
    attention_layers: tuple[int, ...] = (10, 13, 17, 27)
    n_embd: int = 768
    n_head: int = 12
    n_head_kv: int = 4
    n_ff: int = 2048
    n_state: int = 128
    n_state_heads: int = 48
    n_vocab: int = 100_352
    n_ctx_train: int = 32_768

    @property
    def n_inner(self) -> int:
        """Width of the recurrent part, which the architecture fixes."""
        return 2 * self.n_embd


TINY_HYBRID = HybridShape(
    n_layer=3,
    attention_layers=(1,),
    n_embd=64,
    n_head=4,
    n_head_kv=2,
    n_ff=128,
    n_state=16,
    n_state_heads=8,
    n_vocab=2048,
)


def write_hybrid(path: Path, shape: HybridShape, seed: int = 0) -> None:
    """Write a model of *shape* to *path*."""
    writer = GGUFWriter(path, "granitehybrid")
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    # A layer without heads is a recurrent one.
    layers = range(shape.n_layer)
    writer.add_head_count_kv(
        [shape.n_head_kv if layer in shape.attention_layers else 0 for layer in layers]
    )
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_scaling_finetuned(False)
    writer.add_ssm_conv_kernel(_CONVOLUTION)
    writer.add_ssm_inner_size(shape.n_inner)
    writer.add_ssm_state_size(shape.n_state)
    writer.add_ssm_time_step_rank(shape.n_state_heads)
    writer.add_ssm_group_count(1)
    writer.add_file_type(GGMLQuantizationType.Q4_0)
    vocabulary = byte_pair_vocabulary(shape.n_vocab)
    vocabulary.write_to(writer)

    weights = WeightWriter(writer, seed)
    weights.matrix(
        "token_embd.weight",
        shape.n_vocab,
        shape.n_embd,
        gain=LOGIT_DEVIATION,
        silent=vocabulary.silent,
    )
    weights.constant("output_norm.weight", (shape.n_embd,), 1.0)
    into_residual = (2 * shape.n_layer) ** -0.5
    for layer in layers:
        block = f"blk.{layer}"
        if layer in shape.attention_layers:
            _add_attention(weights, block, shape, into_residual)
        else:
            _add_recurrence(weights, block, shape, into_residual)
        weights.constant(f"{block}.attn_norm.weight", (shape.n_embd,), 1.0)
        weights.constant(f"{block}.ffn_norm.weight", (shape.n_embd,), 1.0)
        weights.matrix(f"{block}.ffn_gate.weight", shape.n_ff, shape.n_embd)
        weights.matrix(f"{block}.ffn_up.weight", shape.n_ff, shape.n_embd)
        weights.matrix(f"{block}.ffn_down.weight", shape.n_embd, shape.n_ff, gain=into_residual)
    save(writer)


def _add_attention(weights: WeightWriter, block: str, shape: HybridShape, gain: float) -> None:
    n_embd = shape.n_embd
    heads_kv = n_embd // shape.n_head * shape.n_head_kv
    weights.matrix(f"{block}.attn_q.weight", n_embd, n_embd)
    weights.matrix(f"{block}.attn_k.weight", heads_kv, n_embd)
    weights.matrix(f"{block}.attn_v.weight", heads_kv, n_embd)
    weights.matrix(f"{block}.attn_output.weight", n_embd, n_embd, gain=gain)


def _add_recurrence(weights: WeightWriter, block: str, shape: HybridShape, gain: float) -> None:
    n_inner, n_heads = shape.n_inner, shape.n_state_heads
    n_convolved = n_inner + 2 * shape.n_state
    weights.matrix(f"{block}.ssm_in.weight", n_inner + n_convolved + n_heads, shape.n_embd)
    weights.random(f"{block}.ssm_conv1d.weight", (n_convolved, _CONVOLUTION), -0.5, 0.5)
    weights.constant(f"{block}.ssm_conv1d.bias", (n_convolved,), 0.0)
    # Time steps and decays as a fresh Mamba 2 layer has them, so that its state stays finite.
    weights.random(f"{block}.ssm_dt.bias", (n_heads,), -4.0, -2.0)
    weights.random(f"{block}.ssm_a", (n_heads, 1), -16.0, -1.0)
    weights.constant(f"{block}.ssm_d", (n_heads, 1), 1.0)
    weights.constant(f"{block}.ssm_norm.weight", (1, n_inner), 1.0)
    weights.matrix(f"{block}.ssm_out.weight", shape.n_embd, n_inner, gain=gain)
