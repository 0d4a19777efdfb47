"""The last resort: a guess from nothing but the size of the files."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw.memory.identity import model_files
from llm_router_mw.types import HOST, Cost, Device, MemoryEstimate, Model, Placement
from llm_router_mw.units import GIB

_CONTEXT_PART = 0.1
_MOST_PART, _MOST_BYTES = 1.2, 2 * GIB


class FileSizeEstimator:
    """Adds a part for everything that is not weights; knows nothing of the model."""

    name = "file-size"

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate:
        """Return a guess; where GPUs share the model it is all charged to each of them.

        Raises:
            ModelFileError: a file is missing.
        """
        size = sum(n_bytes for _, n_bytes, _ in model_files(model))
        targets = placement.devices or (HOST,)
        if placement.n_gpu_layers != -1 and placement.devices:
            targets = (*targets, HOST)
        cost = Cost(weights_bytes=size, context_bytes=int(size * _CONTEXT_PART))
        return MemoryEstimate(
            expected=dict.fromkeys(targets, cost),
            upper=dict.fromkeys(targets, int(size * _MOST_PART) + _MOST_BYTES),
            source=self.name,
            confidence="low",
            soft_bytes=size if HOST in targets and model.options.use_mmap else 0,
            notes=("guessed from the size of the files alone",),
        )
