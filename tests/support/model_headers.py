"""Headers of models of any size, and files that have nothing behind them: they take no room."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path

from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGUFArray, GGUFHeader, GGUFTensor, ValueType
from llm_router_mw.gguf import tensor_bytes as bytes_of
from llm_router_mw.gguf.header import Scalar
from llm_router_mw.testing.gguf import GGUFFile, Item, Tensor, array

Value = Scalar | tuple[int, ...] | tuple[bool, ...]
Metadata = Mapping[str, Value]
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name → type and shape, the length of a row first."""

NOTHING: Metadata = {}
NO_TENSORS: Tensors = {}
LLAMA: Metadata = {
    "block_count": 4,
    "context_length": 8192,
    "embedding_length": 1024,
    "feed_forward_length": 4096,
    "attention.head_count": 16,
    "attention.head_count_kv": 4,
    "vocab_size": 32_000,
}
"""A small dense model, as most describe themselves."""


def header(
    architecture: str = "llama",
    metadata: Metadata = NOTHING,
    tensors: Tensors = NO_TENSORS,
    *,
    base: Metadata = LLAMA,
) -> GGUFHeader:
    """Return the header of a model of *architecture*, described by *base* and *metadata*."""
    described = {
        f"{architecture}.{key}": _array(value) if isinstance(value, tuple) else value
        for key, value in {**base, **metadata}.items()
    }
    placed, offset = [], 0
    for name, (kind, shape) in tensors.items():
        size = size_of(kind, shape)
        placed.append(GGUFTensor(name, shape, GGML_TYPE_NUMBERS[kind], offset, size))
        offset += size + -size % 32
    return GGUFHeader(
        version=3,
        metadata={"general.architecture": architecture, **described},
        tensors=tuple(placed),
        alignment=32,
        data_offset=4096,
        file_bytes=4096 + offset,
    )


def write_sparse(
    path: Path,
    architecture: str = "llama",
    metadata: Metadata = NOTHING,
    tensors: Tensors | None = None,
    *,
    n_tokens: int = 0,
    base: Metadata = LLAMA,
    general: Mapping[str | bytes, Item] = {},
) -> Path:
    """Write a file whose weights are a hole, with a vocabulary of *n_tokens*; return its path.

    Keys of *general* are taken as they are, others get the architecture's prefix.
    """
    described: dict[str | bytes, Item] = {"general.architecture": architecture, **general}
    for key, value in {**base, **metadata}.items():
        item = array(_kind(value), value) if isinstance(value, tuple) else value
        described[f"{architecture}.{key}"] = item
    if n_tokens:
        words = [f"token{number}" for number in range(n_tokens)]
        described["tokenizer.ggml.tokens"] = array(ValueType.STRING, words)
    entries = [
        Tensor(name, shape, GGML_TYPE_NUMBERS[kind], size_of(kind, shape))
        for name, (kind, shape) in (dense_tensors() if tensors is None else tensors).items()
    ]
    head = GGUFFile(metadata=described, tensors=entries).header()
    path.write_bytes(head)
    data = sum(entry.size_bytes + -entry.size_bytes % 32 for entry in entries)
    os.truncate(path, len(head) + -len(head) % 32 + data)
    return path


def dense_tensors(
    kind: str = "q8_0",
    *,
    n_layer: int = 4,
    n_embd: int = 1024,
    n_kv: int = 256,
    n_ff: int = 4096,
    n_vocab: int = 32_000,
    tied: bool = False,
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the tensors of a dense decoder; by default those that ``LLAMA`` describes."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "token_embd.weight": (kind, (n_embd, n_vocab)),
        "output_norm.weight": ("f32", (n_embd,)),
    }
    if not tied:
        tensors["output.weight"] = (kind, (n_embd, n_vocab))
    for layer in range(n_layer):
        block = f"blk.{layer}"
        tensors |= {
            f"{block}.attn_norm.weight": ("f32", (n_embd,)),
            f"{block}.attn_q.weight": (kind, (n_embd, n_embd)),
            f"{block}.attn_k.weight": (kind, (n_embd, n_kv)),
            f"{block}.attn_v.weight": (kind, (n_embd, n_kv)),
            f"{block}.attn_output.weight": (kind, (n_embd, n_embd)),
            f"{block}.ffn_norm.weight": ("f32", (n_embd,)),
            f"{block}.ffn_gate.weight": (kind, (n_embd, n_ff)),
            f"{block}.ffn_up.weight": (kind, (n_embd, n_ff)),
            f"{block}.ffn_down.weight": (kind, (n_ff, n_embd)),
        }
    return tensors


def size_of(kind: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor."""
    size = bytes_of(GGML_TYPE_NUMBERS[kind], shape)
    assert size is not None
    assert prod(shape)
    return size


def _kind(values: tuple[int, ...] | tuple[bool, ...]) -> ValueType:
    return ValueType.BOOL if isinstance(values[0], bool) else ValueType.INT32


def _array(values: tuple[int, ...] | tuple[bool, ...]) -> GGUFArray:
    return GGUFArray(_kind(values), len(values), values)
