"""How others guess what a model takes, from what its file says."""

from __future__ import annotations

from llm_router_mw.memory.model_file import ModelFile

_GIB = 1024**3
_FILE_PART, _FILE_EXTRA = 1.2, 2 * _GIB
_HALF_BYTES = 2


def file_size_rule(file: ModelFile) -> int:
    """Return the rule of thumb: a fifth more than the file, and two gigabytes."""
    return int(file.size_bytes * _FILE_PART) + _FILE_EXTRA


def ollama_rule(file: ModelFile, n_ctx: int) -> int:
    """Return Ollama's guess before a load (``PredictServerVRAM``): file and plain KV cache.

    All layers have as many KV heads as the one with the fewest, and heads are as wide as the
    embedding divided by their number; scratch memory is left out.
    """
    shape = file.shape
    n_head = max(shape.n_head) or 1
    heads = min(shape.n_head_kv) or 1
    cache = 2 * shape.n_layer * heads * (shape.n_embd // n_head) * n_ctx * _HALF_BYTES
    return file.size_bytes + cache
