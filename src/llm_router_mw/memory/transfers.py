"""What is in memory of each device because the graph is divided: inputs, and copies of them.

The phases of a layer were measured where one device does everything. Checked against devices that
ggml reaches over the network, which it treats like GPUs.
"""

from __future__ import annotations

from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.layers import Layers
from llm_router_mw.memory.phases import Need, mask_bytes
from llm_router_mw.memory.resolved_context import ResolvedContext
from llm_router_mw.types import HOST

_FLOAT_BYTES, _INDEX_BYTES = 4, 8
_PIPELINE_COPIES = 4
"""Of all inputs, where several GPUs work at the same time (``GGML_SCHED_MAX_COPIES``)."""


def host_inputs_bytes(model: Hyperparameters, context: ResolvedContext, layers: Layers) -> int:
    """Return what the host has of the inputs, however little it computes.

    The embeddings that are looked up are among the inputs, and once more what was looked up.
    """
    embeddings = _embedding_bytes(model, context)
    return _copies(layers) * (_input_bytes(model, context) + embeddings) + embeddings


def transferred(
    model: Hyperparameters,
    context: ResolvedContext,
    layers: Layers,
    device: str,
    *,
    computes_layers: bool,
) -> Need:
    """Return what *device* has besides the phases of what it computes; it may be less than 0."""
    masks = mask_bytes(model, context) if computes_layers else 0
    if device == HOST:
        return Need(masks, masks)
    embeddings = _embedding_bytes(model, context)
    if not computes_layers:
        if layers.output != device:
            return Need(0, 0)
        # Some architectures leave it to the output layer to pick the rows that are wanted.
        return Need(0, 2 * embeddings)
    if not layers.is_pipelined:
        more = embeddings if HOST in layers.repeating else 0
        return Need(masks - _saved(model, layers) * embeddings, masks + more)
    copied = (_copies(layers) - 1) * _input_bytes(model, context)
    # What comes from the device before is double: a layer's input and what is added to it.
    sources = 1 if device == layers.gpus[0] else 2
    coming = _copies(layers) * sources * (embeddings + _scanned_bytes(model, context))
    return Need(
        masks + copied + coming - embeddings, masks + copied + coming + sources * embeddings
    )


def _saved(model: Hyperparameters, layers: Layers) -> int:
    """Return how many times the embeddings are not there, because another device looks them up."""
    if all(model.is_recurrent[: model.n_layer]):
        return 0
    is_dense = not any(network.n_ff_exp for network in model.feed_forward)
    return 2 if HOST in layers.repeating and is_dense else 1


def _scanned_bytes(model: Hyperparameters, context: ResolvedContext) -> int:
    """Return what a state-space layer reads that is not computed where its weights are."""
    has_scan = any(model.is_recurrent) and model.architecture.recurrence != "interval"
    convolved = model.inner_size + 2 * model.n_group * model.state_size
    return _FLOAT_BYTES * context.n_tokens * convolved if has_scan and model.inner_size else 0


def _copies(layers: Layers) -> int:
    return _PIPELINE_COPIES if layers.is_pipelined else 1


def _embedding_bytes(model: Hyperparameters, context: ResolvedContext) -> int:
    return _FLOAT_BYTES * context.n_tokens * model.n_embd


def _input_bytes(model: Hyperparameters, context: ResolvedContext) -> int:
    """Return the bytes of the masks, and of where values go that are stored one by one."""
    masks = mask_bytes(model, context)
    if not context.pads_values or not any(model.has_kv):
        return masks
    n_caches = len({swa for swa, kv in zip(model.is_swa, model.has_kv, strict=True) if kv})
    values = max(model.n_embd_v) * context.n_tokens
    return masks + n_caches * _INDEX_BYTES * values
