"""State of recurrent layers: exact, and independent of the context's length.

Follows ``llama_memory_recurrent``: always in single precision, for each sequence that may be.
"""

from __future__ import annotations

from collections import defaultdict

from llm_router_mw.memory.hyperparameters import Hyperparameters
from llm_router_mw.memory.layers import Layers
from llm_router_mw.memory.resolved_context import ResolvedContext
from llm_router_mw.types import HOST

_FLOAT_BYTES = 4


def recurrent_bytes(
    model: Hyperparameters, context: ResolvedContext, layers: Layers, *, offloaded: bool = True
) -> dict[str, int]:
    """Return the bytes of the states on each device; all on the host if not *offloaded*."""
    found: dict[str, int] = defaultdict(int)
    size = _FLOAT_BYTES * (model.n_embd_r + model.n_embd_s) * max(1, context.n_seq_max)
    for layer, recurrent in enumerate(model.is_recurrent):
        if recurrent:
            found[layers.repeating[layer] if offloaded else HOST] += size
    return dict(found)
