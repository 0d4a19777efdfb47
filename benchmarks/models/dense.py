"""A dense transformer: Qwen3's architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFWriter

from benchmarks.models.file import LOGIT_DEVIATION, save
from benchmarks.models.vocabulary import byte_pair_vocabulary
from benchmarks.models.weights import WeightWriter


@dataclass(frozen=True)
class DenseShape:
    """Sizes of a model; the defaults are Qwen3-0.6B's."""

    n_layer: int = 28
    n_embd: int = 1024
    n_head: int = 16
    n_head_kv: int = 8
    head_size: int = 128
    n_ff: int = 3072
    n_vocab: int = 151_936
    n_ctx_train: int = 40_960


TINY_DENSE = DenseShape(
    n_layer=2, n_embd=64, n_head=4, n_head_kv=2, head_size=32, n_ff=128, n_vocab=2048
)


def write_dense(path: Path, shape: DenseShape, seed: int = 0) -> None:
    """Write a model of *shape* to *path*."""
    writer = GGUFWriter(path, "qwen3")
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(GGMLQuantizationType.Q4_0)
    vocabulary = byte_pair_vocabulary(shape.n_vocab)
    vocabulary.write_to(writer)

    weights = WeightWriter(writer, seed)
    n_embd, heads = shape.n_embd, shape.n_head * shape.head_size
    heads_kv = shape.n_head_kv * shape.head_size
    into_residual = (2 * shape.n_layer) ** -0.5
    # The output matrix is the embedding's too.
    weights.matrix(
        "token_embd.weight", shape.n_vocab, n_embd, gain=LOGIT_DEVIATION, silent=vocabulary.silent
    )
    weights.constant("output_norm.weight", (n_embd,), 1.0)
    for layer in range(shape.n_layer):
        block = f"blk.{layer}"
        weights.constant(f"{block}.attn_norm.weight", (n_embd,), 1.0)
        weights.constant(f"{block}.ffn_norm.weight", (n_embd,), 1.0)
        weights.constant(f"{block}.attn_q_norm.weight", (shape.head_size,), 1.0)
        weights.constant(f"{block}.attn_k_norm.weight", (shape.head_size,), 1.0)
        weights.matrix(f"{block}.attn_q.weight", heads, n_embd)
        weights.matrix(f"{block}.attn_k.weight", heads_kv, n_embd)
        weights.matrix(f"{block}.attn_v.weight", heads_kv, n_embd)
        weights.matrix(f"{block}.attn_output.weight", n_embd, heads, gain=into_residual)
        weights.matrix(f"{block}.ffn_gate.weight", shape.n_ff, n_embd)
        weights.matrix(f"{block}.ffn_up.weight", shape.n_ff, n_embd)
        weights.matrix(f"{block}.ffn_down.weight", n_embd, shape.n_ff, gain=into_residual)
    save(writer)
