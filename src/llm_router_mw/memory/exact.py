"""Estimates whose buffers are known to the byte: what is added is only what no buffer holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from llm_router_mw.memory.adapters import adapter_bytes
from llm_router_mw.memory.layers import place_layers
from llm_router_mw.memory.model_file import ModelFile
from llm_router_mw.memory.overhead import BackendOverhead, host_overhead
from llm_router_mw.memory.phases import Need
from llm_router_mw.memory.resolved_context import resolve_context
from llm_router_mw.types import HOST, Cost, Device, Model, Placement
from llm_router_mw.units import MIB

OVERHEADS_SPARE_BYTES = 8 * MIB
"""On each device: buffers are rounded up to pages, and drivers have their own ideas."""


class ExactCosts:
    """Adds adapters and overheads to the sizes of buffers."""

    def __init__(self, overhead: BackendOverhead) -> None:
        self._overhead = overhead

    def complete(
        self,
        buffers: Mapping[str, Cost],
        file: ModelFile,
        model: Model,
        placement: Placement,
        devices: Sequence[Device],
        *,
        with_adapters: bool,
    ) -> tuple[dict[str, Cost], dict[str, int]]:
        """Return what is expected on each device, and what it will not exceed.

        *with_adapters* is for buffers that were sized without them.
        """
        options = model.options
        layers = place_layers(placement, devices, file.shape.n_layer_all)
        context = resolve_context(file.shape, options, placement.n_ctx)
        paths = [adapter.path for adapter in options.lora] if with_adapters else []
        adapters = adapter_bytes(paths, file.shape, layers)
        kinds = {device.id: device.kind for device in devices}
        expected: dict[str, Cost] = {}
        upper: dict[str, int] = {}
        for device, cost in buffers.items():
            overhead: Need = (
                host_overhead(file.shape, context, layers)
                if device == HOST
                else self._overhead.on(device, kinds.get(device, "other"))
            )
            expected[device] = structs.replace(
                cost,
                weights_bytes=cost.weights_bytes + adapters.get(device, 0),
                overhead_bytes=overhead.expected,
            )
            held = expected[device].total_bytes - overhead.expected
            upper[device] = held + overhead.most + OVERHEADS_SPARE_BYTES
        return expected, upper
