"""What memory there is, what a load needs of it, and where it is put. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

HOST = "host"
"""Id of the host's own pool."""

DeviceKind = Literal["host", "cuda", "rocm", "vulkan", "metal", "sycl", "rpc", "other"]
SplitMode = Literal["none", "layer", "row"]
Confidence = Literal["measured", "exact", "high", "low"]


class Device(Struct, frozen=True, kw_only=True):
    """Memory that models can be put on, as a probe saw it."""

    id: str
    """Lasting identity: ``host``, a GPU's UUID or its PCI address; never an index."""
    pool: str
    """Id of the pool it draws from: its own, or ``host`` where memory is unified."""
    kind: DeviceKind
    name: str
    """For people: ``NVIDIA H200``."""
    total_bytes: int
    """0 is unknown, not nothing and not without end."""
    free_bytes: int
    """What a new process could take now; other processes and limits of a container counted."""
    pci_id: str = ""
    """``dddd:bb:dd.f`` in lower case, as ggml names it; empty if it has none."""
    backend_name: str = ""
    """ggml's name in a worker that sees all devices (``CUDA0``); empty if unknown."""
    note: str = ""
    """Why something about it is unknown."""


class Placement(Struct, frozen=True, kw_only=True):
    """Where one load goes. Always passed on explicitly, so that estimate and reality agree."""

    devices: tuple[str, ...] = ()
    """Ids of the GPUs it uses, in llama.cpp's order; none is the host alone."""
    n_gpu_layers: int = 0
    """Layers on the GPUs, the output layer counted as llama.cpp does; -1 is all of them."""
    split_mode: SplitMode = "none"
    tensor_split: tuple[float, ...] = ()
    """Share of each device in ``devices``."""
    main_gpu: int = 0
    """Index in ``devices``."""
    n_cpu_moe: int = 0
    """Of how many layers, the first ones, the experts lie on the host though the layers do not."""
    n_ctx: int = 0
    """Tokens of context, resolved; 0 leaves it to the load options."""
    degraded: bool = False
    """Whether a better placement exists for a machine with more room."""


class Cost(Struct, frozen=True, kw_only=True):
    """Bytes on one device, by what they are for."""

    weights_bytes: int = 0
    context_bytes: int = 0
    """KV cache and recurrent state."""
    compute_bytes: int = 0
    """Scratch of the largest graph, and the output buffer."""
    overhead_bytes: int = 0
    """Of the backend and the process: in no buffer that llama.cpp reports."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.context_bytes + self.compute_bytes + self.overhead_bytes


class MemoryEstimate(Struct, frozen=True, kw_only=True):
    """What one load needs on each device (by device id)."""

    expected: Mapping[str, Cost]
    upper: Mapping[str, int]
    """What it will not exceed."""
    source: str
    """Name of the estimator."""
    confidence: Confidence
    soft_bytes: int = 0
    """Part of the host's weights that is clean pages of a mapped file: they may be dropped."""
    notes: tuple[str, ...] = ()
    """What was assumed."""


class BufferMemory(Struct, frozen=True, kw_only=True):
    """What one type of llama.cpp's buffers holds of an instance."""

    buffer_type: str
    """llama.cpp's name: ``CPU``, ``CPU_Mapped``, ``CPU_REPACK``, ``CUDA0``; or ``output``."""
    device: str
    """Whose memory that is: the id of a ``Device`` as the worker saw it, or ``host``."""
    weights_bytes: int = 0
    context_bytes: int = 0
    compute_bytes: int = 0


class MeasuredMemory(Struct, frozen=True, kw_only=True):
    """What an instance really holds, as its worker reports after a load."""

    buffers: tuple[BufferMemory, ...] = ()
    """None if llama.cpp's answer cannot be read in this build; ``note`` says why."""
    devices: tuple[Device, ...] = ()
    """The GPUs that the worker saw, in llama.cpp's order."""
    private_bytes: int = 0
    """Anonymous memory of the process on the host once its context is full; 0 is unknown."""
    peak_bytes: int = 0
    """The most that was resident at once, pages of mapped files and those that a full context will
    take counted; 0 is unknown."""
    note: str = ""


class Price(Struct, frozen=True, kw_only=True):
    """A placement and what it is charged for."""

    placement: Placement
    bytes_by_pool: Mapping[str, int]
    """The estimate's ``upper``, summed by pool."""
    context_bytes_by_pool: Mapping[str, int] = {}
    """Part of it that goes with the context: what sleep of level ``context`` frees."""
    weights_bytes_by_pool: Mapping[str, int] = {}
    """Part of it that goes with the weights: what level ``full`` frees besides."""


class PoolReading(Struct, frozen=True, kw_only=True):
    """One look at a pool."""

    total_bytes: int
    free_bytes: int
    ours_bytes: int = 0
    """What our own workers were seen to hold of it at the same moment."""
    margin_bytes: int = 0
    """What must stay free."""
    limit_bytes: int | None = None
    """What we may take at most, if somebody says so."""

    @property
    def others_bytes(self) -> int:
        """What other programs hold."""
        return max(0, self.total_bytes - self.free_bytes - self.ours_bytes)

    @property
    def capacity_bytes(self) -> int:
        """What may be charged to us in all."""
        return self._limited(self.total_bytes - self.others_bytes - self.margin_bytes)

    @property
    def most_bytes(self) -> int:
        """What could be charged to us if other programs gave back all that they hold."""
        return self._limited(self.total_bytes - self.margin_bytes)

    @property
    def lacking_bytes(self) -> int:
        """How much of the margin is not free, whoever has taken it."""
        return max(0, self.margin_bytes - self.free_bytes) if self.total_bytes else 0

    def _limited(self, n_bytes: int) -> int:
        usable = max(0, n_bytes)
        return usable if self.limit_bytes is None else min(usable, self.limit_bytes)
