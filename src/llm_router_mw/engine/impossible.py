"""Contexts at which llama.cpp ends the process instead of refusing them."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from llm_router_mw.engine.native import llama
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGML_TYPES
from llm_router_mw.types import LoadOptions

_FEW_TENSORS: Final = frozenset({"phi3"})
"""Architectures with so few tensors that the graph of turned keys and values outgrows the room that
llama.cpp has for it: eight nodes for each."""
_NAME_BYTES: Final = 64


def refuse_impossible(model: Any, options: LoadOptions) -> None:
    """Refuse the context of *model*, a pointer, if llama.cpp would abort over it.

    Raises:
        ModelLoadError: it would.
    """
    turns_both = _is_quantised(options.type_k) and _is_quantised(options.type_v)
    has_streams = options.n_parallel > 1 and not (options.kv_unified or options.pooling)
    if turns_both and has_streams and architecture(model) in _FEW_TENSORS:
        raise ModelLoadError(
            f"llama.cpp cannot compute {architecture(model)} with quantised keys and values for "
            "several requests that have separate caches: set kv_unified, or type_k to 'f16'"
        )


def architecture(model: Any) -> str:
    """Return the architecture that the file of *model*, a pointer, names."""
    buffer = ctypes.create_string_buffer(_NAME_BYTES)
    llama.llama_model_meta_val_str(model, b"general.architecture", buffer, _NAME_BYTES)
    return buffer.value.decode(errors="replace")


def _is_quantised(name: str) -> bool:
    return GGML_TYPES[GGML_TYPE_NUMBERS[name]].block_size > 1
