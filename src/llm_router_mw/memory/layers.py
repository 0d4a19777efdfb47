"""Which device each layer goes to, by llama.cpp's own arithmetic."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from msgspec import Struct

from llm_router_mw.types import HOST, Device, Placement


class Layers(Struct, frozen=True, kw_only=True):
    """Devices by what lies on them, as ids."""

    gpus: tuple[str, ...]
    """Those that are used, in llama.cpp's order."""
    visible: bool
    """Whether llama.cpp sees a GPU at all: then host memory is pinned for it."""
    repeating: tuple[str, ...]
    """Of each layer."""
    output: str
    """Of the output layer."""
    is_mixed: bool = False
    """Whether some tensors, or the cache, lie elsewhere than their layers."""

    @property
    def used(self) -> tuple[str, ...]:
        """All devices, the host last."""
        return (*self.gpus, HOST)

    @property
    def is_pipelined(self) -> bool:
        """Whether all layers lie on several GPUs, which then work at the same time."""
        on_gpus = HOST not in self.repeating and self.output != HOST
        return len(self.gpus) > 1 and on_gpus and not self.is_mixed


def place_layers(placement: Placement, devices: Sequence[Device], n_layer_all: int) -> Layers:
    """Return where *placement* puts the layers of a model that has *n_layer_all* of them."""
    gpus = placement.devices
    if placement.split_mode == "none" and gpus:
        gpus = gpus[placement.main_gpu : placement.main_gpu + 1]
    n_gpu = placement.n_gpu_layers if placement.n_gpu_layers >= 0 else n_layer_all + 1
    if not gpus:
        n_gpu = 0
    first, count = max(n_layer_all + 1 - n_gpu, 0), min(n_gpu, n_layer_all + 1)
    ends = _ends(placement, gpus, {device.id: device for device in devices})

    def device_of(layer: int) -> str:
        if layer < first or layer - first >= count:
            return HOST
        index = bisect_right(ends, _single((layer - first) / count))
        return gpus[min(index, len(gpus) - 1)]

    return Layers(
        gpus=tuple(gpus),
        visible=bool(placement.devices),
        repeating=tuple(device_of(layer) for layer in range(n_layer_all)),
        output=device_of(n_layer_all),
    )


def shares(
    placement: Placement, gpus: Sequence[str], devices: Mapping[str, Device]
) -> tuple[float, ...]:
    """Return the share of each of *gpus*; without any said, it is what is free on them."""
    given = placement.tensor_split[: len(gpus)]
    given += (0.0,) * (len(gpus) - len(given))
    if any(given):
        return given
    return tuple(float(devices[gpu].free_bytes or 1) if gpu in devices else 1.0 for gpu in gpus)


def _ends(placement: Placement, gpus: Sequence[str], devices: Mapping[str, Device]) -> list[float]:
    """Return where each GPU's part ends, from 0 to 1, in single precision as llama.cpp has it."""
    ends, total = [], 0.0
    for share in shares(placement, gpus, devices):
        total = _single(total + _single(share))
        ends.append(total)
    return [_single(end / total) for end in ends]


def _single(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
