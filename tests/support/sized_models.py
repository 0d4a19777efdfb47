"""Models of a wanted size that llama.cpp really loads and runs: the data of all weights is a hole.

The file takes no room on disk, and its pages take as much memory as any other once they are read.
A model of zeros answers with the first token of the vocabulary, whatever it is asked.
"""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from tests.support.tiny_models import DEFAULT_CHAT_TEMPLATE
from tests.support.tiny_vocabulary import make_vocabulary

MIB = 1024**2
_EMBD, _HEADS, _HEAD = 512, 8, 64
_KV_HEADS = 1
"""As few as can be: the size is that of the weights, whatever the context."""
_LAYER_BYTES = 16 * MIB
_FLOAT = 4
_ALIGNMENT = 32


def write_sized_model(path: Path, size_bytes: int) -> Path:
    """Write a Llama-shaped model whose layers have *size_bytes* of weights; return its path.

    It is off by less than 200 KiB for each 16 MiB.
    """
    vocabulary = make_vocabulary()
    n_layer = max(1, ceil(size_bytes / _LAYER_BYTES))
    attention = 2 * _EMBD * (_HEADS + _KV_HEADS) * _HEAD
    n_ff = (size_bytes // n_layer // _FLOAT - attention) // (3 * _EMBD) // 32 * 32
    assert n_ff > 0, "too small for a layer"

    writer = GGUFWriter(path, "llama")
    writer.add_name("sized")
    writer.add_context_length(2048)
    writer.add_embedding_length(_EMBD)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_HEAD)
    vocabulary.write_to(writer)
    writer.add_chat_template(DEFAULT_CHAT_TEMPLATE)

    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (len(vocabulary.texts), _EMBD),
        "output_norm": (_EMBD,),
        "output": (len(vocabulary.texts), _EMBD),
    }
    for layer in range(n_layer):
        shapes |= {
            f"blk.{layer}.attn_norm": (_EMBD,),
            f"blk.{layer}.attn_q": (_HEADS * _HEAD, _EMBD),
            f"blk.{layer}.attn_k": (_KV_HEADS * _HEAD, _EMBD),
            f"blk.{layer}.attn_v": (_KV_HEADS * _HEAD, _EMBD),
            f"blk.{layer}.attn_output": (_EMBD, _HEADS * _HEAD),
            f"blk.{layer}.ffn_norm": (_EMBD,),
            f"blk.{layer}.ffn_gate": (n_ff, _EMBD),
            f"blk.{layer}.ffn_up": (n_ff, _EMBD),
            f"blk.{layer}.ffn_down": (_EMBD, n_ff),
        }
    data_bytes = 0
    for name, shape in shapes.items():
        n_bytes = int(np.prod(shape)) * _FLOAT
        writer.add_tensor_info(f"{name}.weight", shape, np.dtype(np.float32), n_bytes)
        data_bytes += _aligned(n_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, _aligned(path.stat().st_size) + data_bytes)
    return path


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
