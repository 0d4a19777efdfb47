"""Says what an instance would be charged wherever it may be placed, and what it really holds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from llm_router_mw.errors import LLMRouterError, ModelLoadError
from llm_router_mw.memory.buffers import MAPPED
from llm_router_mw.protocols import Estimator, LearningEstimator, PlacementPolicy
from llm_router_mw.types import (
    HOST,
    Cost,
    Device,
    MeasuredMemory,
    MemoryEstimate,
    Model,
    Placement,
    Price,
)

logger = logging.getLogger("llm_router_mw.memory")


class Appraiser:
    """Asks the placement policy where a model may go, and the estimators what it needs there."""

    def __init__(
        self,
        policy: PlacementPolicy,
        estimators: Sequence[Estimator],
        *,
        charge_mmap: bool,
        is_required: bool,
    ) -> None:
        """The first estimator that can tell has the say.

        *charge_mmap* counts pages of mapped files in full; *is_required* refuses what nobody can
        tell about.
        """
        self._policy = policy
        self._estimators = estimators
        self._charge_mmap = charge_mmap
        self._is_required = is_required

    def prices(self, model: Model, devices: Sequence[Device]) -> tuple[Price, ...]:
        """Return what *model* is charged in each possible place, best first; none if unknown.

        Reads files: call it off the event loop.

        Raises:
            ModelLoadError: nobody can tell, and it is required.
        """
        if not devices:
            return ()
        priced = []
        for placement in self._policy.place(model, devices):
            estimate = self._estimate(model, placement, devices)
            if estimate is None:
                if self._is_required:
                    raise ModelLoadError(
                        f"nobody can tell how much memory {model.id!r} needs, and require_estimate "
                        "is set: install an estimator for it, or turn that off"
                    )
                logger.warning(
                    "%s: nobody can tell how much memory it needs; limits do not apply to it",
                    model.id,
                )
                return ()
            priced.append(self._price(placement, estimate, devices))
        return tuple(priced)

    def _price(
        self, placement: Placement, estimate: MemoryEstimate, devices: Sequence[Device]
    ) -> Price:
        charged = dict(estimate.upper)
        if not self._charge_mmap and HOST in charged:
            charged[HOST] -= estimate.soft_bytes
        return _price(placement, estimate, charged, devices)

    def learn(
        self,
        model: Model,
        placement: Placement,
        memory: MeasuredMemory,
        devices: Sequence[Device],
        used_bytes: Mapping[str, int],
    ) -> None:
        """Tell the estimators that can learn what a load of *model* took. Writes files."""
        for estimator in self._estimators:
            if isinstance(estimator, LearningEstimator):
                try:
                    estimator.record(model, placement, memory, devices, used_bytes)
                except Exception as error:  # what is not learned costs a little accuracy, no load
                    logger.warning("%s: nothing was learned of its load: %s", model.id, error)

    def _estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate | None:
        for estimator in self._estimators:
            try:
                estimate = estimator.estimate(model, placement, devices)
            except Exception as error:
                # What one cannot read, or fails at, the next may know; whether the file is any
                # good llama.cpp says itself.
                level = logging.INFO if isinstance(error, LLMRouterError) else logging.ERROR
                logger.log(level, "%s: estimator %r failed: %s", model.id, estimator.name, error)
                continue
            if estimate is not None:
                return estimate
        return None


def measured_by_pool(
    memory: MeasuredMemory | None, price: Price | None, devices: Sequence[Device]
) -> dict[str, int] | None:
    """Return the bytes that an instance was seen to hold, by pool; None if it was not seen.

    Pages of mapped files count in full. What a driver holds for the process is in no buffer, so a
    GPU's pool is charged no less than was reserved.
    """
    if memory is None or not memory.buffers:
        return None
    pools = {device.id: device.pool for device in devices}
    held: Counter[str] = Counter()
    private_on_host = 0
    for buffer in memory.buffers:
        size = buffer.weights_bytes + buffer.context_bytes + buffer.compute_bytes
        held[pools.get(buffer.device, HOST)] += size
        if buffer.device == HOST and buffer.buffer_type != MAPPED:
            private_on_host += size
    # The process itself, its vocabulary and its libraries' heaps.
    held[HOST] += max(0, memory.private_bytes - private_on_host)
    if price is not None:
        for pool, reserved in price.bytes_by_pool.items():
            if pool != HOST:
                held[pool] = max(held[pool], reserved)
    return dict(held)


def mapped_bytes(memory: MeasuredMemory | None) -> int:
    """Return how much of what an instance holds is pages of a mapped file."""
    buffers = () if memory is None else memory.buffers
    return sum(each.weights_bytes for each in buffers if each.buffer_type == MAPPED)


def _price(
    placement: Placement,
    estimate: MemoryEstimate,
    charged: Mapping[str, int],
    devices: Sequence[Device],
) -> Price:
    pools = {device.id: device.pool for device in devices}
    context: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for device, cost in estimate.expected.items():
        pool = pools.get(device, device)
        context[pool] += _of_context(cost)
        weights[pool] += cost.weights_bytes
    return Price(
        placement=placement,
        bytes_by_pool=_by_pool(charged, pools),
        context_bytes_by_pool=dict(context),
        weights_bytes_by_pool=dict(weights),
    )


def _of_context(cost: Cost) -> int:
    return cost.context_bytes + cost.compute_bytes


def _by_pool(by_device: Mapping[str, int], pools: Mapping[str, str]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for device, size in by_device.items():
        total[pools.get(device, device)] += size
    return dict(total)
