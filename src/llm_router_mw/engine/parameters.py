"""What llama.cpp is told when it loads a model: the same for a real load and for a dry run."""

from __future__ import annotations

import os
from typing import Any

from llm_router_mw.context_shape import context_shape
from llm_router_mw.engine.native import llama
from llm_router_mw.engine.overrides import install_devices, install_overrides, install_split
from llm_router_mw.gguf import GGML_TYPE_NUMBERS
from llm_router_mw.tensor_overrides import tensor_overrides
from llm_router_mw.types import LoadOptions, Placement

_POOLING = {
    "": llama.LLAMA_POOLING_TYPE_UNSPECIFIED,
    "none": llama.LLAMA_POOLING_TYPE_NONE,
    "mean": llama.LLAMA_POOLING_TYPE_MEAN,
    "cls": llama.LLAMA_POOLING_TYPE_CLS,
    "last": llama.LLAMA_POOLING_TYPE_LAST,
    "rank": llama.LLAMA_POOLING_TYPE_RANK,
}
_SPLIT_MODE = {
    "none": llama.LLAMA_SPLIT_MODE_NONE,
    "layer": llama.LLAMA_SPLIT_MODE_LAYER,
    "row": llama.LLAMA_SPLIT_MODE_ROW,
}
_LOAD_MODE = {
    (False, False): llama.LLAMA_LOAD_MODE_NONE,
    (True, False): llama.LLAMA_LOAD_MODE_MMAP,
    (False, True): llama.LLAMA_LOAD_MODE_MLOCK,
    (True, True): llama.LLAMA_LOAD_MODE_MMAP_MLOCK,
}
"""By whether the file is mapped, and whether it is locked."""
_FLASH_ATTENTION = {
    "auto": llama.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def model_parameters(options: LoadOptions, placement: Placement | None = None) -> Any:
    """Return how the weights are loaded; a *placement* is stronger in where they go.

    Raises:
        ModelLoadError: tensors shall go where there is nothing.
    """
    where = options if placement is None else placement
    parameters = llama.llama_model_default_params()
    parameters.n_gpu_layers = where.n_gpu_layers
    parameters.split_mode = _SPLIT_MODE[where.split_mode]
    parameters.main_gpu = where.main_gpu
    if placement is not None:
        install_devices(parameters, placement.devices)
    install_split(parameters, where.tensor_split)
    used = None if placement is None else placement.devices
    if used and where.split_mode == "none":
        used = used[where.main_gpu : where.main_gpu + 1]
    install_overrides(parameters, tensor_overrides(options, placement), used)
    parameters.load_mode = _LOAD_MODE[options.use_mmap, options.use_mlock]
    return parameters


def context_parameters(
    options: LoadOptions, n_ctx_train: int, placement: Placement | None = None
) -> Any:
    """Return how the context of a model is made that was trained with *n_ctx_train* tokens."""
    shape = context_shape(options, n_ctx_train)
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = (placement.n_ctx if placement is not None else 0) or shape.n_ctx
    parameters.n_batch = shape.n_batch
    parameters.n_ubatch = shape.n_ubatch
    parameters.n_seq_max = shape.n_seq_max
    parameters.kv_unified = shape.kv_unified
    parameters.n_outputs_max = shape.n_outputs_max
    if not shape.n_outputs_max:
        parameters.n_outputs_max_per_seq = 0
    parameters.embeddings = shape.embeddings
    parameters.pooling_type = _POOLING[options.pooling]
    parameters.n_threads = parameters.n_threads_batch = options.n_threads or usable_cores()
    parameters.flash_attn_type = _FLASH_ATTENTION[options.flash_attn]
    parameters.type_k = GGML_TYPE_NUMBERS[options.type_k]
    parameters.type_v = GGML_TYPE_NUMBERS[options.type_v]
    parameters.swa_full = options.swa_full
    parameters.offload_kqv = options.offload_kqv
    parameters.op_offload = options.op_offload
    return parameters


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
