"""How long a context can be before something does not fit any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from llm_router_mw.memory.metadata import MetadataEstimator
from llm_router_mw.memory.pools import by_pool
from llm_router_mw.memory.resolved_context import CELLS_STEP
from llm_router_mw.types import Device, Model, Placement


def largest_context(
    model: Model,
    placement: Placement,
    devices: Sequence[Device],
    room: Mapping[str, int],
    estimator: MetadataEstimator | None = None,
) -> int:
    """Return the longest context, in tokens, with which *model* fits into *room*.

    *room* is bytes by pool; a pool that is not in it is taken to have room for anything. The
    answer is a multiple of 256, at most what the model was trained with; 0 if nothing fits.

    Raises:
        ModelFileError: the file is missing or is no language model.
    """
    source = estimator or MetadataEstimator()
    trained = source.files.read(model).shape.n_ctx_train

    def fits(steps: int) -> bool:
        longer = structs.replace(placement, n_ctx=steps * CELLS_STEP)
        needed = by_pool(source.estimate(model, longer, devices).upper, devices)
        return all(n_bytes <= room.get(pool, n_bytes) for pool, n_bytes in needed.items())

    low, high = 0, max(1, trained // CELLS_STEP)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low * CELLS_STEP
