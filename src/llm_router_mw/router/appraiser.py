"""Says what an instance would be charged wherever it may be placed, and what it really holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from llm_router_mw.errors import LLMRouterError, ModelLoadError
from llm_router_mw.faults import Faults
from llm_router_mw.memory.buffers import MAPPED, costs_by_device
from llm_router_mw.memory.pools import by_pool
from llm_router_mw.protocols import Estimator, LearningEstimator, PlacementPolicy
from llm_router_mw.types import (
    HOST,
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
        faults: Faults,
    ) -> None:
        """The first estimator that can tell has the say; one that fails is told to *faults*.

        *charge_mmap* counts pages of mapped files in full; *is_required* refuses what nobody can
        tell about.
        """
        self._faults = faults
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
            price = self.price(model, placement, devices)
            if price is None:
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
            priced.append(price)
        return tuple(priced)

    def price(self, model: Model, placement: Placement, devices: Sequence[Device]) -> Price | None:
        """Return what *model* is charged in one place; None if unknown. Reads files."""
        for estimator in self._estimators:
            try:
                estimate = estimator.estimate(model, placement, devices)
                if estimate is not None:
                    return self._price(placement, estimate, devices)
            except LLMRouterError as error:
                # What one cannot read the next may; if the file is any good llama.cpp says itself.
                logger.info("%s: estimator %r: %s", model.id, estimator.name, error)
            except Exception as error:
                self._faults.add("estimator", estimator.name, error)
        return None

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
                    self._faults.add("estimator", estimator.name, error)


def measured_by_pool(
    memory: MeasuredMemory | None, price: Price | None, devices: Sequence[Device]
) -> dict[str, int] | None:
    """Return the bytes that an instance was seen to hold, by pool; None if that is not known.

    Pages of mapped files count in full. What a driver holds for the process is in no buffer, so a
    GPU's pool is charged no less than was reserved.
    """
    if memory is None or not memory.buffers:
        return None
    placement = Placement() if price is None else price.placement
    costs = costs_by_device(memory, placement, devices)
    if costs is None:
        return None
    held = by_pool({device: cost.total_bytes for device, cost in costs.items()}, devices)
    # The process itself, its vocabulary and its libraries' heaps.
    in_buffers = costs[HOST].total_bytes - mapped_bytes(memory)
    held[HOST] += max(0, memory.private_bytes - in_buffers)
    if price is not None:
        for pool, reserved in price.bytes_by_pool.items():
            if pool != HOST:
                held[pool] = max(held.get(pool, 0), reserved)
    return held


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
    costs = estimate.expected.items()
    context = {device: cost.context_bytes + cost.compute_bytes for device, cost in costs}
    weights = {device: cost.weights_bytes for device, cost in costs}
    return Price(
        placement=placement,
        bytes_by_pool=by_pool(charged, devices),
        context_bytes_by_pool=by_pool(context, devices),
        weights_bytes_by_pool=by_pool(weights, devices),
    )
