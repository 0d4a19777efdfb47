"""Scratch memory of the graphs, on each device, and the buffer of the results.

On several devices each has a buffer for the layers it computes; the host always has the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_router_mw.gguf import GGML_TYPES
from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.layers import Layers
from llm_router_mw.memory.phases import (
    Need,
    layer_needs,
    logits_need,
    memory_needs,
    network_needs,
)
from llm_router_mw.memory.resolved_context import ResolvedContext
from llm_router_mw.memory.transfers import host_inputs_bytes, transferred
from llm_router_mw.types import HOST, Device, DeviceKind, LoadOptions

_FLOAT_BYTES, _HALF_BYTES = 4, 2
_SMALL_BYTES = 64 * 1024
"""Positions, indices and the like."""
_NEVER_OFFLOADING = frozenset({"rpc"})
"""Kinds of devices that compute with none but their own weights."""
_OFFLOADED_BATCH = 32
"""Tokens from which on a GPU computes with weights that lie on the host."""


def compute_needs(
    model: Hyperparameters,
    context: ResolvedContext,
    layers: Layers,
    devices: Sequence[Device],
    options: LoadOptions,
    largest_host_layer_bytes: int,
) -> dict[str, Need]:
    """Return the scratch memory on each device."""
    kinds: dict[str, DeviceKind] = {device.id: device.kind for device in devices}
    on_host = largest_host_layer_bytes > 0
    streams_weights = (
        bool(layers.gpus)
        and kinds.get(layers.gpus[0]) not in _NEVER_OFFLOADING
        and options.op_offload
        and on_host
        and context.n_tokens >= _OFFLOADED_BATCH
    )
    by_layer = [_largest(layer_needs(model, context, layer)) for layer in range(model.n_layer)]
    found: dict[str, Need] = {}
    for device in layers.used:
        streams = streams_weights and device == layers.gpus[0]
        own = [
            need
            for need, where in zip(by_layer, layers.repeating, strict=False)
            if where == device or streams
        ]
        computes = bool(own)
        if layers.output == device:
            own.append(logits_need(model, context))
        peak = _largest(own)
        more = transferred(model, context, layers, device, computes_layers=computes)
        expected, most = peak.expected + more.expected, peak.most + more.most
        if device == HOST and layers.gpus:
            inputs = host_inputs_bytes(model, context, layers)
            for_gpus = _computed_for_gpus(
                model, context, layers, options, with_networks=on_host and not streams_weights
            )
            expected = max(expected, inputs + for_gpus.expected)
            most = max(most, inputs + for_gpus.most)
        if device != HOST:
            scratch = _converted_cache_bytes(model, context, kinds.get(device, "other"))
            expected, most = expected + scratch, most + scratch
        if streams:
            expected += largest_host_layer_bytes // 2
            most += largest_host_layer_bytes
        found[device] = Need(max(0, expected) + _SMALL_BYTES // 4, most + _SMALL_BYTES)
    return found


def _computed_for_gpus(
    model: Hyperparameters,
    context: ResolvedContext,
    layers: Layers,
    options: LoadOptions,
    *,
    with_networks: bool,
) -> Need:
    """Return what the host takes to compute parts of layers that lie on GPUs.

    That is what looks at a cache on the host, and *with_networks* those whose weights are there.
    """
    found: list[Need] = []
    for layer, where in zip(range(model.n_layer), layers.repeating, strict=False):
        if where != HOST and with_networks:
            found += network_needs(model, context, layer)
        if where != HOST and not options.offload_kqv:
            found += memory_needs(model, context, layer)
    return _largest(found)


def output_bytes(model: Hyperparameters, context: ResolvedContext) -> int:
    """Return the bytes of the buffer of results, on the host.

    It has room for the scores of all tokens for each row that a batch may ask for.
    """
    rows = context.n_batch if context.has_embeddings else context.n_outputs
    width = model.n_vocab + (model.n_embd_out if context.has_embeddings else 0)
    return _FLOAT_BYTES * width * max(rows, context.n_seq_max)


def _largest(needs: Iterable[Need]) -> Need:
    found = list(needs)
    return Need(
        max((need.expected for need in found), default=0),
        max((need.most for need in found), default=0),
    )


def _converted_cache_bytes(
    model: Hyperparameters, context: ResolvedContext, kind: DeviceKind
) -> int:
    """Return what flash attention on CUDA takes to read a quantised cache: a layer's, as halves."""
    if kind not in ("cuda", "rocm") or not context.has_flash_attention:
        return 0
    is_quantised = {
        each: GGML_TYPES[each].block_size > 1 for each in (context.type_k, context.type_v)
    }
    widest = 0
    for layer, has_kv in enumerate(model.has_kv):
        if has_kv:
            cells = context.n_ctx_swa if model.is_swa[layer] else context.n_ctx_seq
            width = model.width_k(layer) if is_quantised[context.type_k] else 0
            width += model.width_v(layer) if is_quantised[context.type_v] else 0
            widest = max(widest, cells * context.n_stream * width)
    return _HALF_BYTES * widest
