"""A text encoder that makes embeddings: BERT's architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFWriter, PoolingType

from benchmarks.models.file import save
from benchmarks.models.vocabulary import write_word_piece_vocabulary
from benchmarks.models.weights import WeightWriter


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of a model; the defaults are all-MiniLM-L6-v2's."""

    n_layer: int = 6
    n_embd: int = 384
    n_head: int = 12
    n_ff: int = 1536
    n_vocab: int = 30_522
    n_ctx_train: int = 512


TINY_ENCODER = EncoderShape(n_layer=2, n_embd=32, n_head=4, n_ff=64, n_vocab=1024)


def write_encoder(path: Path, shape: EncoderShape, seed: int = 0) -> None:
    """Write a model of *shape* to *path*."""
    writer = GGUFWriter(path, "bert")
    writer.add_context_length(shape.n_ctx_train)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_file_type(GGMLQuantizationType.F16)
    write_word_piece_vocabulary(writer, shape.n_vocab)

    weights = WeightWriter(writer, seed)
    n_embd, n_ff = shape.n_embd, shape.n_ff
    weights.half("token_embd.weight", shape.n_vocab, n_embd)
    weights.random("position_embd.weight", (shape.n_ctx_train, n_embd), -0.05, 0.05)
    weights.random("token_types.weight", (2, n_embd), -0.05, 0.05)
    _add_norm(weights, "token_embd_norm", n_embd)
    for layer in range(shape.n_layer):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights.half(f"{block}.{part}.weight", n_embd, n_embd)
            weights.constant(f"{block}.{part}.bias", (n_embd,), 0.0)
        weights.half(f"{block}.ffn_up.weight", n_ff, n_embd)
        weights.constant(f"{block}.ffn_up.bias", (n_ff,), 0.0)
        weights.half(f"{block}.ffn_down.weight", n_embd, n_ff)
        weights.constant(f"{block}.ffn_down.bias", (n_embd,), 0.0)
        _add_norm(weights, f"{block}.attn_output_norm", n_embd)
        _add_norm(weights, f"{block}.layer_output_norm", n_embd)
    save(writer)


def _add_norm(weights: WeightWriter, name: str, size: int) -> None:
    weights.constant(f"{name}.weight", (size,), 1.0)
    weights.constant(f"{name}.bias", (size,), 0.0)
