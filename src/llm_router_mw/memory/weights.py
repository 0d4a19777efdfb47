"""Where each tensor of a model lies once it is loaded, and what it takes there.

Follows ``llama_model_loader::create_tensor``, ``llama_model::load_tensors`` and the sizes that
``ggml_backend_alloc_ctx_tensors_from_buft`` gives buffers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from llm_router_mw.gguf import GGML_TYPE_NUMBERS, GGML_TYPES, GGUFHeader, GGUFTensor
from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.layers import Layers, shares
from llm_router_mw.memory.repack import is_repacked
from llm_router_mw.tensor_overrides import tensor_overrides
from llm_router_mw.types import HOST, Device, LoadOptions, Placement
from llm_router_mw.units import GIB

_INPUTS = frozenset(
    {"token_embd.weight", "position_embd.weight", "token_types.weight"}
    | {"per_layer_token_embd.weight"}
)
"""Looked up rather than multiplied: always on the host."""
_FIRST_LAYER = ("token_embd_norm.", "per_layer_model_proj.", "per_layer_proj_norm.")
"""Named without a layer, but placed with the first."""
_EVERY_LAYER = ("rope_freqs.", "rope_factors_")
"""One copy on each device that has layers."""
_BLOCK = re.compile(r"(?:enc\.|dec\.)?blk\.(\d+)\.")
_LAZY_BYTES = 4 * GIB
"""A larger table of gemma4's is mapped however the rest is read."""
_HOST_ALIGNMENT, _GPU_ALIGNMENT = 32, 128
_CUDA_ROW = 512
"""Elements that a quantised row is padded to, once per tensor."""
_NEVER_PINNING = frozenset({"metal", "rpc"})
"""Kinds of GPUs that have no memory of the host pinned for them."""
_LOOKED_UP_ON_GPU = frozenset(
    GGML_TYPE_NUMBERS[name]
    for name in ("f16", "f32", "bf16", "q1_0", "q2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
)
"""Types whose rows CUDA can look up, so that the table lies in memory pinned for it."""


class Weights(Struct, frozen=True, kw_only=True):
    """Bytes of the weights."""

    bytes_by_device: Mapping[str, int]
    mapped_bytes: int
    """Part of the host's that is pages of the file."""
    largest_host_layer_bytes: int
    """Of one layer's matrices on the host, the most that a GPU may be sent for a batch."""


def place_weights(
    headers: Sequence[GGUFHeader],
    model: Hyperparameters,
    layers: Layers,
    placement: Placement,
    devices: Sequence[Device],
    options: LoadOptions,
) -> Weights:
    """Return what the tensors of all *headers*, the parts of one model, take on each device."""
    ledger = _Ledger(layers, placement, devices, options)
    tied = model.architecture.has_output
    embedding: tuple[int, GGUFHeader, GGUFTensor] | None = None
    for part, header in enumerate(headers):
        for tensor in header.tensors:
            name = tensor.name
            if name == "token_embd.weight":
                embedding = part, header, tensor
            tied = tied and name != "output.weight"
            for device in targets(name, model, layers):
                ledger.add(part, header, tensor, device)
    if tied and embedding is not None:
        ledger.add_tied(*embedding)
    return ledger.total()


def targets(name: str, model: Hyperparameters, layers: Layers) -> Iterator[str]:
    """Yield the devices that get a copy of the tensor called *name*, overrides aside."""
    if block := _BLOCK.match(name):
        layer = int(block[1])
        # Layers for drafting are left in the file; an impossible number is nobody's.
        if layer < model.n_layer:
            yield layers.repeating[layer]
    elif name in _INPUTS:
        yield HOST
    elif name.startswith(_EVERY_LAYER):
        dense = [
            device
            for device, swa in zip(layers.repeating, model.is_swa, strict=True)
            if not (swa and model.name == "gemma4")
        ]
        yield from dict.fromkeys(dense[: model.n_layer])
    elif name.startswith(_FIRST_LAYER) and not model.name.startswith("lfm2"):
        yield layers.repeating[0]
    else:
        yield layers.output


class _Ledger:
    """Adds up tensors, in the buffers that llama.cpp would put them in."""

    def __init__(
        self,
        layers: Layers,
        placement: Placement,
        devices: Sequence[Device],
        options: LoadOptions,
    ) -> None:
        self._layers = layers
        by_id = {device.id: device for device in devices}
        self._kinds = {gpu: by_id[gpu].kind if gpu in by_id else "other" for gpu in layers.gpus}
        self._names = {by_id[gpu].backend_name: gpu for gpu in layers.gpus if gpu in by_id}
        self._rows = placement.split_mode == "row" and len(layers.gpus) > 1
        self._shares = shares(placement, layers.gpus, by_id)
        self._mapped = options.use_mmap
        # Host memory that is pinned for a GPU keeps weights as they are; mapped pages cannot be.
        self._pinned = layers.visible and not _NEVER_PINNING & set(self._kinds.values())
        self._overrides = [
            (re.compile(pattern), buffer)
            for pattern, buffer in tensor_overrides(options, placement)
        ]
        self._bytes: dict[str, int] = defaultdict(int)
        self._spans: dict[tuple[str, int], tuple[int, int]] = {}
        self._lazy = 0
        self._on_host: dict[str, int] = defaultdict(int)

    def add(self, part: int, header: GGUFHeader, tensor: GGUFTensor, device: str) -> None:
        """Add one copy of *tensor* that belongs on *device*, unless an override says otherwise."""
        device = self._overridden(tensor.name, device)
        size = tensor.size_bytes or 0
        if device != HOST:
            self._add_to_gpu(part, header, tensor, device, size)
            return
        if (block := _BLOCK.match(tensor.name)) and len(tensor.shape) > 1:
            self._on_host[block[1]] += size
        if tensor.name == "per_layer_token_embd.weight" and size > _LAZY_BYTES:
            self._lazy += size
        elif self._repacked(tensor) or not self._mapped:
            self._bytes[HOST] += _padded(size, _HOST_ALIGNMENT)
        else:
            self._map(part, header, tensor, HOST, size)

    def add_tied(self, part: int, header: GGUFHeader, tensor: GGUFTensor) -> None:
        """Add the embedding's second copy, as the output matrix; none if it shares a buffer."""
        device = self._overridden(tensor.name, self._layers.output)
        if device == self._overridden(tensor.name, HOST) != HOST:
            return
        if device != HOST:
            self.add(part, header, tensor, device)
            return
        looked_up = tensor.ggml_type in _LOOKED_UP_ON_GPU
        apart = self._pinned and not self._mapped and not looked_up
        if apart or self._repacked(tensor, as_matrix=True):
            self._bytes[HOST] += _padded(tensor.size_bytes or 0, _HOST_ALIGNMENT)

    def total(self) -> Weights:
        """Return the sum of what was added."""
        found = dict(self._bytes)
        mapped = self._lazy
        for (device, _), (first, last) in self._spans.items():
            found[device] = found.get(device, 0) + last - first
            mapped += last - first if device == HOST else 0
        found[HOST] = found.get(HOST, 0) + self._lazy
        return Weights(
            bytes_by_device=found,
            mapped_bytes=mapped,
            largest_host_layer_bytes=max(self._on_host.values(), default=0),
        )

    def _overridden(self, name: str, device: str) -> str:
        for pattern, buffer in self._overrides:
            if pattern.search(name):
                return self._owner(buffer)
        return device

    def _owner(self, buffer: str) -> str:
        """Return the device of a buffer type's name; the worker numbers the GPUs that it sees."""
        if buffer in self._names or buffer in self._layers.gpus:
            return self._names.get(buffer, buffer)
        number = re.search(r"(\d+)$", buffer)
        if number and int(number[1]) < len(self._layers.gpus):
            return self._layers.gpus[int(number[1])]
        return HOST

    def _repacked(self, tensor: GGUFTensor, *, as_matrix: bool = False) -> bool:
        if (tensor.name in _INPUTS and not as_matrix) or self._pinned:
            return False
        return is_repacked(tensor, of_experts="exps." in tensor.name)

    def _add_to_gpu(
        self, part: int, header: GGUFHeader, tensor: GGUFTensor, device: str, size: int
    ) -> None:
        kind = self._kinds.get(device, "other")
        if kind == "metal" and self._mapped:
            self._map(part, header, tensor, device, size)
        elif self._rows and len(tensor.shape) == 2 and tensor.name.endswith(".weight"):
            total = sum(self._shares)
            for gpu, share in zip(self._layers.gpus, self._shares, strict=True):
                part_bytes = int(size * share / total) + _row_padding(tensor)
                self._bytes[gpu] += _padded(part_bytes, _GPU_ALIGNMENT)
        else:
            padding = _row_padding(tensor) if kind in ("cuda", "rocm") else 0
            self._bytes[device] += _padded(size + padding, _GPU_ALIGNMENT)

    def _map(
        self, part: int, header: GGUFHeader, tensor: GGUFTensor, device: str, size: int
    ) -> None:
        """Count the pages from the first to the last tensor: all between them is mapped too."""
        begin = header.data_offset + tensor.offset
        first, last = self._spans.get((device, part), (begin, begin + size))
        self._spans[device, part] = min(first, begin), max(last, begin + size)


def _row_padding(tensor: GGUFTensor) -> int:
    kind = GGML_TYPES.get(tensor.ggml_type)
    rest = tensor.shape[0] % _CUDA_ROW if tensor.shape else 0
    if kind is None or kind.block_size == 1 or not rest:
        return 0
    return (_CUDA_ROW - rest) // kind.block_size * kind.block_bytes


def _padded(size: int, alignment: int) -> int:
    return size + -size % alignment
