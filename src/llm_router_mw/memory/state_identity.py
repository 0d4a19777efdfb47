"""Of what a saved state of a sequence is a state: with anything else it means nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from llm_router_mw.context_shape import context_shape
from llm_router_mw.errors import ModelFileError
from llm_router_mw.gguf import read_header
from llm_router_mw.memory.identity import FileIdentity, llama_build, model_files
from llm_router_mw.types import LoadOptions, Model, Placement
from llm_router_mw.types.snapshot import IDENTITY_SEPARATOR

_NO_MATTER: Final = frozenset(
    {
        "n_ctx",  # but see _is_stretched
        "fit_ctx",
        "n_parallel",
        "share_prefix",
        "context_shift",
        "n_batch",
        "n_ubatch",
        "n_threads",
        "n_gpu_layers",
        "split_mode",
        "tensor_split",
        "main_gpu",
        "min_gpu_layers",
        "allow_partial_offload",
        "override_tensor",
        "cpu_moe",
        "n_cpu_moe",
        "offload_kqv",
        "op_offload",
        "use_mmap",
        "use_mlock",
        "touch_context",
        "chat_format",
        "chat_template",
        "lora",
    }
)
"""Load options that leave a state as it is. Others, those to come included, are part of it."""


def state_identity(model: Model, placement: Placement | None, environ: Mapping[str, str]) -> str:
    """Return the identity of states that *model* makes where *placement* puts it.

    Files count by place, size and time of the last change, llama.cpp by its libraries, and the
    path of the model's file stands first: see ``Snapshot.model_path``. Reads directories, and once
    the header of the file.

    Raises:
        ModelFileError: a file is missing.
    """
    options, files = model.options, model_files(model)
    about = (
        msgspec.to_builtins(files),
        llama_build(environ),
        _relevant(options),
        _layout(options, placement),
        _is_stretched(files[0], options, placement),
    )
    digest = sha256(msgspec.json.encode(about)).hexdigest()
    return f"{os.path.realpath(model.path)}{IDENTITY_SEPARATOR}{digest}"


def _relevant(options: LoadOptions) -> dict[str, object]:
    given: dict[str, object] = msgspec.to_builtins(options)
    return {name: value for name, value in sorted(given.items()) if name not in _NO_MATTER}


def _layout(options: LoadOptions, placement: Placement | None) -> tuple[object, ...]:
    """Return what else decides how llama.cpp lays a state out."""
    # Separate streams are saved with their number; where flash attention is left to llama.cpp, it
    # depends on the devices, and values are stored the other way round without it.
    streams = 0 if options.kv_unified else options.n_parallel
    on_gpu = placement is not None and placement.n_gpu_layers != 0 and bool(placement.devices)
    return streams, options.flash_attn == "auto" and on_gpu


def _is_stretched(file: FileIdentity, options: LoadOptions, placement: Placement | None) -> bool:
    """Return whether the context is longer than that for which positions were trained at first.

    Some models (LongRoPE) turn keys by other angles then: ``llama_model::get_rope_factors``.
    """
    n_ctx_train, n_ctx_original = _trained(file)
    n_ctx = (placement.n_ctx if placement is not None else 0) or context_shape(
        options, n_ctx_train
    ).n_ctx
    per_sequence = n_ctx if options.kv_unified else n_ctx // options.n_parallel
    return 0 < n_ctx_original < per_sequence


@lru_cache(maxsize=256)
def _trained(file: FileIdentity) -> tuple[int, int]:
    """Return the lengths of context for which a model was trained, and was trained at first.

    Both are 0 where the file does not say.
    """
    try:
        header = read_header(file[0])
    except ModelFileError:  # the load will say what is wrong with it
        return 0, 0
    n_ctx_train = header.n_ctx_train or 0
    key = f"{header.architecture}.rope.scaling.original_context_length"
    return n_ctx_train, header.integer(key) or n_ctx_train
