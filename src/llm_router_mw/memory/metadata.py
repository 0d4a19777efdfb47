"""Prices a load from the header of its file: no weights are read, no backend is started.

Weights, cache and state are exact for known architectures; scratch memory is a formula with a
reserve on top. Milliseconds, so it may be asked for each placement that is thought of.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from msgspec import structs

from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGML_TYPES
from llm_router_mw.memory.adapters import adapter_bytes
from llm_router_mw.memory.compute import compute_needs, output_bytes
from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.kv_cache import kv_cache_bytes
from llm_router_mw.memory.layers import Layers, place_layers
from llm_router_mw.memory.model_file import ModelFile, ModelFiles, Remembered
from llm_router_mw.memory.overhead import BackendOverhead, host_overhead
from llm_router_mw.memory.phases import Need
from llm_router_mw.memory.recurrent import recurrent_bytes
from llm_router_mw.memory.resolved_context import ResolvedContext, resolve_context
from llm_router_mw.memory.weights import Weights, place_weights
from llm_router_mw.tensor_overrides import tensor_overrides
from llm_router_mw.types import (
    HOST,
    Cost,
    Device,
    LoadOptions,
    MemoryEstimate,
    Model,
    Placement,
)
from llm_router_mw.units import MIB

SCRATCH_RESERVE_BYTES = 24 * MIB
SCRATCH_RESERVE = 1.02
"""On top of the most that the phases take: for alignment, and for what no formula foresees."""
_UNKNOWN_RESERVE = 1.25
"""On top of everything of an unknown architecture."""
_UNKNOWN_RESERVE_BYTES = 256 * MIB
CUDA_HEADS = frozenset({40, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576})
"""Sizes of heads that CUDA has flash attention for."""


class MetadataEstimator:
    """Knows llama.cpp's arithmetic. Safe to be used by several threads."""

    name = "metadata"

    def __init__(
        self, overhead: BackendOverhead | None = None, files: ModelFiles | None = None
    ) -> None:
        """Use what *overhead* has learned of the devices, and share what *files* has read."""
        self.overhead = overhead or BackendOverhead()
        self.files = files or ModelFiles()
        self._estimates: Remembered[Hashable, MemoryEstimate] = Remembered(1024)
        self._weights: Remembered[Hashable, tuple[Weights, dict[str, int]]] = Remembered(128)

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate:
        """Return what *model* needs where *placement* puts it.

        Raises:
            ModelFileError: its file is missing or is no language model.
        """
        file = self.files.read(model)
        learned = tuple(sorted(self.overhead.learned.items()))
        key = (file.identity, model.options, placement, _facts(placement, devices), learned)
        known = self._estimates.get(key)
        if known is not None:
            return known
        return self._estimates.put(key, self._estimate(file, model.options, placement, devices))

    def _estimate(
        self,
        file: ModelFile,
        options: LoadOptions,
        placement: Placement,
        devices: Sequence[Device],
    ) -> MemoryEstimate:
        shape = file.shape
        layers = structs.replace(
            place_layers(placement, devices, shape.n_layer_all),
            is_mixed=not options.offload_kqv or bool(tensor_overrides(options, placement)),
        )
        flash = _flash_attention(shape, layers, devices, options)
        context = resolve_context(shape, options, placement.n_ctx, flash=flash)
        weights, adapters = self._placed(file, options, placement, devices, layers)
        cache = kv_cache_bytes(shape, context, layers, offloaded=options.offload_kqv)
        state = recurrent_bytes(shape, context, layers, offloaded=options.offload_kqv)
        scratch = compute_needs(
            shape, context, layers, devices, options, weights.largest_host_layer_bytes
        )
        kinds = {device.id: device.kind for device in devices}
        expected: dict[str, Cost] = {}
        upper: dict[str, int] = {}
        for device in layers.used:
            outputs = output_bytes(shape, context) if device == HOST else 0
            overhead = (
                host_overhead(shape, context, layers)
                if device == HOST
                else self.overhead.on(device, kinds.get(device, "other"))
            )
            cost = Cost(
                weights_bytes=weights.bytes_by_device.get(device, 0) + adapters.get(device, 0),
                context_bytes=cache.get(device, 0) + state.get(device, 0),
                compute_bytes=scratch[device].expected + outputs,
                overhead_bytes=overhead.expected,
            )
            expected[device] = cost
            upper[device] = _upper(shape, cost, scratch[device], outputs, overhead)
        return MemoryEstimate(
            expected=expected,
            upper=upper,
            source=self.name,
            confidence="high" if shape.architecture.is_known else "low",
            soft_bytes=0 if options.use_mlock else weights.mapped_bytes,
            notes=_notes(shape, context, options),
        )

    def _placed(
        self,
        file: ModelFile,
        options: LoadOptions,
        placement: Placement,
        devices: Sequence[Device],
        layers: Layers,
    ) -> tuple[Weights, dict[str, int]]:
        """Return the weights and the adapters; they stay the same for any length of context."""
        where = (tensor_overrides(options, placement), options.use_mmap)
        key = (file.identity, where, layers, placement.split_mode, _facts(placement, devices))
        known = self._weights.get(key)
        if known is not None:
            return known
        weights = place_weights(file.headers, file.shape, layers, placement, devices, options)
        paths = [adapter.path for adapter in options.lora]
        return self._weights.put(key, (weights, adapter_bytes(paths, file.shape, layers)))


def _facts(placement: Placement, devices: Sequence[Device]) -> Hashable:
    """Return what an estimate takes from *devices*."""
    by_free = len(placement.devices) > 1 and not any(placement.tensor_split)
    return tuple(
        (device.id, device.kind, device.backend_name, device.free_bytes if by_free else 0)
        for device in devices
        if device.id in placement.devices
    )


def _flash_attention(
    shape: Hyperparameters, layers: Layers, devices: Sequence[Device], options: LoadOptions
) -> bool | None:
    """Return False where flash attention is known not to work, None where it should."""
    kinds = {device.kind for device in devices if device.id in layers.gpus}
    heads = {head for head, has_kv in zip(shape.head_k, shape.has_kv, strict=True) if has_kv}
    if kinds & {"cuda", "rocm"} and heads - CUDA_HEADS:
        return False
    if options.flash_attn != "auto":
        return None
    attending = [
        device for device, has_kv in zip(layers.repeating, shape.has_kv, strict=True) if has_kv
    ]
    # llama.cpp gives it up where it would not be computed by the device that has the layer.
    if not options.offload_kqv and any(device != HOST for device in attending):
        return False
    # Without it values cannot be quantised, and the load would fail.
    is_quantised = GGML_TYPES[GGML_TYPE_NUMBERS[options.type_v]].block_size > 1
    return False if _is_drawn_to_gpu(shape, layers) and not is_quantised else None


def _is_drawn_to_gpu(shape: Hyperparameters, layers: Layers) -> bool:
    """Return whether a GPU computes the attention of a layer that lies on the host.

    ggml does that in LFM2 where attention comes last before layers of a GPU.
    """
    n_host = layers.repeating.count(HOST)
    is_partly = 0 < n_host < shape.n_layer
    return is_partly and shape.name.startswith("lfm2") and shape.has_kv[n_host - 1]


def _upper(shape: Hyperparameters, cost: Cost, scratch: Need, outputs: int, overhead: Need) -> int:
    most = (
        cost.weights_bytes
        + cost.context_bytes
        + int(scratch.most * SCRATCH_RESERVE)
        + SCRATCH_RESERVE_BYTES
        + outputs
        + overhead.most
    )
    if shape.architecture.is_known:
        return most
    return int(most * _UNKNOWN_RESERVE) + _UNKNOWN_RESERVE_BYTES


def _notes(
    shape: Hyperparameters, context: ResolvedContext, options: LoadOptions
) -> tuple[str, ...]:
    notes = [f"context of {context.n_ctx} tokens for {context.n_seq_max} sequences"]
    if not shape.architecture.is_known:
        notes.append(
            f"the architecture {shape.name!r} is not known here: it was taken for a plain decoder, "
            "with more to spare"
        )
    if not context.has_flash_attention and options.flash_attn == "auto":
        notes.append("without flash attention: its heads or its places do not allow it")
    return tuple(notes)
