"""Memory that is in no buffer of llama.cpp's: of the backend, the process and our own engine."""

from __future__ import annotations

from collections.abc import Mapping

from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.layers import Layers
from llm_router_mw.memory.phases import Need
from llm_router_mw.memory.recurrent import recurrent_bytes
from llm_router_mw.memory.resolved_context import ResolvedContext, row_bytes
from llm_router_mw.types import DeviceKind
from llm_router_mw.units import MIB

CHECKPOINTS = 8
"""States that the engine keeps of a sequence that cannot be rewound, at most."""
CHECKPOINT_BYTES = 512 * MIB
"""What those of all sequences may take, but for one."""
_EXPECTED_CHECKPOINTS = 2
PROCESS = Need(48 * MIB, 112 * MIB)
"""Python, libraries, and what templates and grammars take."""
_TOKEN = Need(300, 700)
"""Of the vocabulary, in llama.cpp and in Python."""
_CELL = Need(128, 192)
"""What llama.cpp and the engine note about each cell of the context."""
_GPU_PRIORS: Mapping[DeviceKind, Need] = {
    "cuda": Need(450 * MIB, 768 * MIB),
    "rocm": Need(400 * MIB, 768 * MIB),
    "metal": Need(128 * MIB, 512 * MIB),
    "vulkan": Need(256 * MIB, 512 * MIB),
}
_OTHER_GPU = Need(300 * MIB, 768 * MIB)
_LEARNED_SPARE = 1.25
"""Part of what was measured that the next load may take."""


class BackendOverhead:
    """What a process takes on a GPU before it allocates anything, and beside it.

    A constant of the driver and the card; until it is learned a prior stands for it.
    """

    def __init__(self, learned: Mapping[str, int] | None = None) -> None:
        """Begin with what is known, by device id."""
        self._learned = dict(learned or {})

    @property
    def learned(self) -> Mapping[str, int]:
        """Bytes by device id, as far as they were measured."""
        return dict(self._learned)

    def learn(self, device: str, n_bytes: int) -> None:
        """Remember that a process was seen to take *n_bytes* more than its buffers on *device*."""
        self._learned[device] = max(0, n_bytes)

    def on(self, device: str, kind: DeviceKind) -> Need:
        """Return what is to be added on a GPU."""
        measured = self._learned.get(device)
        if measured is None:
            return _GPU_PRIORS.get(kind, _OTHER_GPU)
        return Need(measured, int(measured * _LEARNED_SPARE))


def host_overhead(model: Hyperparameters, context: ResolvedContext, layers: Layers) -> Need:
    """Return what the worker takes on the host beside llama.cpp's buffers."""
    cells = context.n_ctx_seq * context.n_stream
    checkpoint = _checkpoint_bytes(model, context, layers)
    n_sequences = 0 if context.has_embeddings else context.n_seq_max
    checkpoints = CHECKPOINTS * n_sequences * checkpoint
    return Need(
        PROCESS.expected
        + _TOKEN.expected * model.n_vocab
        + _CELL.expected * cells
        + min(_EXPECTED_CHECKPOINTS * n_sequences * checkpoint, CHECKPOINT_BYTES),
        PROCESS.most
        + _TOKEN.most * model.n_vocab
        + _CELL.most * cells
        + min(checkpoints, CHECKPOINT_BYTES + checkpoint),
    )


def _checkpoint_bytes(model: Hyperparameters, context: ResolvedContext, layers: Layers) -> int:
    """Return the size of one sequence's state that cannot be computed back."""
    recurrent = sum(recurrent_bytes(model, context, layers).values()) // max(1, context.n_seq_max)
    if not any(model.is_swa):
        return recurrent
    # A window's tokens at most, whatever room the cache has for more.
    rows = min(model.n_swa, context.n_ctx_swa)
    widths = zip(model.n_embd_k, model.n_embd_v, model.is_swa, model.has_kv, strict=True)
    windows = sum(
        row_bytes(context.type_k, keys) + row_bytes(context.type_v, values)
        for keys, values, swa, has_kv in widths
        if swa and has_kv
    )
    return recurrent + windows * rows
