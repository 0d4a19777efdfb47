"""What a server is told when it starts: load options and placement as flags of llama-server."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw.context_shape import DEFAULT_N_CTX, context_shape
from llm_router_mw.errors import NotSupportedError
from llm_router_mw.gguf import read_header
from llm_router_mw.tensor_overrides import tensor_overrides
from llm_router_mw.types import LoadOptions, Placement
from llm_router_mw.wire import Load
from llm_router_mw.worker.visible import visibility

_ALL_LAYERS = 9999
"""More than any model has; every version of llama-server understands a number."""
_LOAD_MODES = {(False, False): "none", (False, True): "mlock", (True, True): "mmap+mlock"}
"""By whether the file is mapped, and whether it is locked; mapped alone is the default."""
_FIXED = ("--host", "127.0.0.1", "--no-webui", "--no-slots", "--offline", "--fit", "off")
# What it would keep on the host beside the context is charged to nobody.
_NO_CACHE = ("--cache-ram", "0")


def arguments(order: Load, extra: Sequence[str], *, warm_up: bool) -> list[str]:
    """Return the arguments of a server that loads what *order* says, but its port.

    Reads the header of the file.

    Raises:
        ModelFileError: the file cannot be used.
        NotSupportedError: an option has no counterpart.
    """
    options, placement = order.options, order.placement
    if options.chat_format != "template":
        raise NotSupportedError(
            f"chat_format {options.chat_format!r} works with the engine 'process' only; "
            "llama-server has the model's template"
        )
    told = ["--model", order.path, *_FIXED, *_NO_CACHE, *_context(order)]
    told += _devices(options, placement, extra)
    for pattern, buffer in tensor_overrides(options, placement):
        told += ["--override-tensor", f"{pattern}={buffer}"]
    for adapter in options.lora:
        told += ["--lora-scaled", f"{adapter.path}:{adapter.scale:g}"]
    mode = _LOAD_MODES.get((options.use_mmap, options.use_mlock))
    if mode is not None:
        told += ["--load-mode", mode]
    if options.chat_template:
        told += ["--chat-template", options.chat_template]
    if not warm_up:
        told.append("--no-warmup")
    return [*told, *extra]


def _context(order: Load) -> list[str]:
    options = order.options
    shape = context_shape(options, read_header(order.path).n_ctx_train or DEFAULT_N_CTX)
    n_ctx = (order.placement.n_ctx if order.placement is not None else 0) or shape.n_ctx
    told = ["--ctx-size", str(n_ctx), "--parallel", str(shape.n_seq_max)]
    told += ["--batch-size", str(shape.n_batch), "--ubatch-size", str(shape.n_ubatch)]
    told += ["--cache-type-k", options.type_k, "--cache-type-v", options.type_v]
    told += ["--flash-attn", options.flash_attn]
    told.append("--kv-unified" if shape.kv_unified else "--no-kv-unified")
    if options.n_threads:
        told += ["--threads", str(options.n_threads), "--threads-batch", str(options.n_threads)]
    if options.pooling:
        told += ["--rerank" if options.pooling == "rank" else "--embeddings"]
        told += ["--pooling", options.pooling]
    flags = {
        "--swa-full": options.swa_full,
        "--no-kv-offload": not options.offload_kqv,
        "--no-op-offload": not options.op_offload,
        "--context-shift": options.context_shift,
    }
    return told + [flag for flag, is_set in flags.items() if is_set]


def _devices(options: LoadOptions, placement: Placement | None, extra: Sequence[str]) -> list[str]:
    is_unnamed = placement is not None and placement.devices and not visibility(placement)
    if is_unnamed and not {"--device", "-dev"} & set(extra):
        raise NotSupportedError(
            "llama-server cannot be told to use these devices by their addresses: name them with "
            "the option 'args' of plugin_options 'llama-server' (--device), or set n_gpu_layers "
            "to 0"
        )
    where = options if placement is None else placement
    layers = _ALL_LAYERS if where.n_gpu_layers < 0 else where.n_gpu_layers
    told = ["--n-gpu-layers", str(layers), "--split-mode", where.split_mode]
    if where.split_mode == "none":
        told += ["--main-gpu", str(where.main_gpu)]
    if where.tensor_split:
        told += ["--tensor-split", ",".join(f"{share:g}" for share in where.tensor_split)]
    return told
