"""What LoRA adapters take: each pair of matrices lies where the matrix lies that it changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from llm_router_mw.gguf import read_header
from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.layers import Layers
from llm_router_mw.memory.weights import targets

_SUFFIXES = (".lora_a", ".lora_b")
_ALIGNMENT = 128
"""That of GPUs; the host's is smaller."""


def adapter_bytes(paths: Iterable[str], model: Hyperparameters, layers: Layers) -> dict[str, int]:
    """Return the bytes of the adapters in *paths* on each device.

    Raises:
        ModelFileError: one cannot be read.
    """
    found: dict[str, int] = defaultdict(int)
    for path in paths:
        for tensor in read_header(path).tensors:
            base = tensor.name.removesuffix(_SUFFIXES[0]).removesuffix(_SUFFIXES[1])
            size = tensor.size_bytes or 0
            for device in targets(base, model, layers):
                found[device] += size + -size % _ALIGNMENT
    return dict(found)
