"""A writer of tiny LoRA adapters for the tiny models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFValueType, GGUFWriter

from tests.support.tiny_vocabulary import make_vocabulary

INSISTENCE = 50.0
"""What the adapter, at scale 1, adds to the logit of its piece: more than any logit is apart."""


def write_tiny_lora(
    path: Path,
    piece: str,
    *,
    architecture: str = "llama",
    n_embd: int = 64,
    target: str = "output",
    kind: str = "adapter",
    switched_by: tuple[int, ...] = (),
) -> Path:
    """Write an adapter with which a tiny model says nothing but *piece*, and return its path.

    Another *target* than the output matrix, of 64 rows, is changed in some way. One that is
    *switched_by* tokens is an aLoRA.
    """
    vocabulary = make_vocabulary()
    # The constant dimension of the tiny models, see there, comes out normalised: at least 0.2.
    first = np.zeros((1, n_embd), np.float32)
    first[0, 0] = 5 * INSISTENCE
    second = np.ones((64, 1), np.float32)
    if target == "output":
        second = np.zeros((len(vocabulary.texts), 1), np.float32)
        second[vocabulary.index(piece)] = 1.0
    writer = GGUFWriter(path, architecture)
    writer.add_type(kind)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    if switched_by:
        key = "adapter.alora.invocation_tokens"
        kinds = GGUFValueType.ARRAY, GGUFValueType.UINT32
        writer.add_key_value(key, list(switched_by), *kinds)
    writer.add_tensor(f"{target}.weight.lora_a", first)
    writer.add_tensor(f"{target}.weight.lora_b", second)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
