"""What a model takes together with a multimodal projector, in one process, as llama-server does it.

The weights lie on one device, whole; scratch memory follows the image, so that ``expected`` is for
the one that llama.cpp tries at the start, and ``upper`` for the largest that it lets through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct, structs

from llm_router_mw.gguf import GGUFHeader, read_header
from llm_router_mw.memory.encoders import Encoder, read_encoders
from llm_router_mw.memory.metadata import CUDA_HEADS, MetadataEstimator
from llm_router_mw.memory.phases import Need
from llm_router_mw.memory.projector_scratch import input_bytes, result_bytes, scratch_need
from llm_router_mw.types import HOST, Confidence, Cost, Device, MemoryEstimate, Model, Placement
from llm_router_mw.units import MIB

_HOST_ALIGNMENT, _GPU_ALIGNMENT = 32, 128
_NODES = Need(4 * MIB, 12 * MIB)
"""What describes the graph of one encoder, and the schedule of its operations."""
_GPU_SPARE_BYTES = 8 * MIB
"""CUDA pads quantised rows; kernels are loaded."""
_EVERY_ENCODERS = re.compile(r"v\.(?:class_embd|patch_embd|norm_embd|deepstack)\b")
"""Of images by their names, but loaded by each encoder of the file."""
_LAYER = re.compile(r"(?:v\.(?:blk|deepstack)|a\.blk)\.(\d+)\.")


class Projector(Struct, frozen=True, kw_only=True):
    """A projector's file, and the device that it goes to."""

    encoders: tuple[Encoder, ...]
    device: str
    confidence: Confidence
    weights_bytes: int
    compute_bytes: int
    """For the image that llama.cpp tries at the start."""
    upper_bytes: int
    """Of the device at most, for the largest image."""
    host: Need
    """What the host takes beside that."""

    @property
    def name(self) -> str:
        """What llama.cpp calls its kind."""
        return ", ".join(dict.fromkeys(encoder.projector for encoder in self.encoders))


def read_projector(path: str, device: str = HOST) -> Projector:
    """Return what the projector in the file *path* takes of the GPU *device*, or of the host.

    Raises:
        ModelFileError: the file is missing or is no projector.
    """
    header = read_header(path)
    encoders = read_encoders(header, path)
    is_on_host = device == HOST
    weights = _weights_bytes(header, encoders, _HOST_ALIGNMENT if is_on_host else _GPU_ALIGNMENT)
    needs = [
        scratch_need(each, has_flash_attention=is_on_host or each.head in CUDA_HEADS)
        for each in encoders
    ]
    copied = 0 if is_on_host else sum(map(input_bytes, encoders))
    spare = 0 if is_on_host else _GPU_SPARE_BYTES
    return Projector(
        encoders=encoders,
        device=device,
        confidence="high" if all(each.kind.is_known for each in encoders) else "low",
        weights_bytes=weights,
        compute_bytes=sum(need.expected for need in needs),
        upper_bytes=weights + sum(need.most for need in needs) + spare,
        host=Need(
            _NODES.expected * len(encoders),
            _NODES.most * len(encoders) + copied + sum(map(result_bytes, encoders)),
        ),
    )


class WithProjector(MetadataEstimator):
    """Prices what *inner* prices, and the projector in a file beside it."""

    def __init__(self, inner: MetadataEstimator, path: str, *, is_offloaded: bool = True) -> None:
        """Put the projector on the first GPU of each placement if *is_offloaded*."""
        super().__init__(files=inner.files)
        self._inner = inner
        self._path = path
        self._is_offloaded = is_offloaded
        self._known: dict[str, Projector] = {}

    def projector(self, placement: Placement) -> Projector:
        """Return what the projector takes where *placement* puts the model.

        Raises:
            ModelFileError: its file is missing or is no projector.
        """
        gpu = placement.devices[0] if placement.devices and self._is_offloaded else HOST
        if gpu not in self._known:
            self._known[gpu] = read_projector(self._path, gpu)
        return self._known[gpu]

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate:
        """Return what both need where *placement* puts them.

        Raises:
            ModelFileError: a file is missing, or is none of its kind.
        """
        found = self._inner.estimate(model, placement, devices)
        beside = self.projector(placement)
        expected, upper = dict(found.expected), dict(found.upper)
        cost = expected.get(beside.device, Cost())
        expected[beside.device] = structs.replace(
            cost,
            weights_bytes=cost.weights_bytes + beside.weights_bytes,
            compute_bytes=cost.compute_bytes + beside.compute_bytes,
        )
        upper[beside.device] = upper.get(beside.device, 0) + beside.upper_bytes
        host = expected[HOST]
        expected[HOST] = structs.replace(
            host, overhead_bytes=host.overhead_bytes + beside.host.expected
        )
        upper[HOST] += beside.host.most
        unknown = [each.projector for each in beside.encoders if not each.kind.is_known]
        return structs.replace(
            found,
            expected=expected,
            upper=upper,
            confidence="low" if unknown else found.confidence,
            notes=(*found.notes, *map(_unknown_note, unknown)),
        )


def _unknown_note(name: str) -> str:
    return f"the projector {name!r} is not known here: its scratch memory is a cautious guess"


def _weights_bytes(header: GGUFHeader, encoders: tuple[Encoder, ...], alignment: int) -> int:
    """Return what the tensors take that the encoders load."""
    total = 0
    for tensor in header.tensors:
        size = tensor.size_bytes or 0
        copies = sum(
            _loads(encoder, tensor.name, is_alone=len(encoders) == 1) for encoder in encoders
        )
        total += copies * (size + -size % alignment)
    return total


def _loads(encoder: Encoder, name: str, *, is_alone: bool) -> bool:
    """Return whether *encoder* loads the tensor called *name*."""
    layer = _LAYER.match(name)
    if layer and int(layer[1]) >= encoder.n_layer:
        return False
    if _EVERY_ENCODERS.match(name):
        return True
    if is_alone and encoder.modality != "vision":
        return True
    is_made = name.startswith("a.gen.")
    is_heard = name.startswith(("a.", "mm.a.")) and not is_made
    modality = "gen.audio" if is_made else "audio" if is_heard else "vision"
    return modality == encoder.modality
