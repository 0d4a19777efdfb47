"""Why a request is refused at once, or after it has waited: errors in words, or None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_router_mw.errors import (
    InvalidRequestError,
    LLMRouterError,
    ModelCoolingDownError,
    ModelNotLoadedError,
    ModelTooLargeError,
    QueueFullError,
    QueueTimeoutError,
)
from llm_router_mw.memory.allowance import MIB
from llm_router_mw.memory.ledger import Amounts, Ledger
from llm_router_mw.scheduler import events
from llm_router_mw.scheduler.demand import SLOTS, demand
from llm_router_mw.scheduler.instance import ASLEEP, ON_ITS_WAY, Instance
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.queue import Queue, Waiter
from llm_router_mw.types import InstanceState


def too_many(wanted: Sequence[Instance], limits: Limits) -> LLMRouterError | None:
    """Refuse to hold more instances at once than there can be."""
    count = len({instance.key for instance in wanted})
    if 0 < limits.models_max < count:
        return InvalidRequestError(
            f"{count} models cannot be held at once: models_max is {limits.models_max}; "
            "ask for fewer or raise models_max",
            param="model",
        )
    return None


def not_loaded(instance: Instance, model: str, request: events.Request) -> LLMRouterError | None:
    """Refuse what is not loaded, if the request may not load it."""
    if request.autoload or instance.state in ON_ITS_WAY or instance.state in ASLEEP:
        return None
    return ModelNotLoadedError(
        f"model {model!r} is not loaded and loading on demand is off; load it first"
    )


def cooling_down(instance: Instance, model: str, now: float) -> LLMRouterError | None:
    """Refuse what failed to load a short while ago."""
    if instance.failure is None or now >= instance.retry_at_seconds:
        return None
    left = instance.retry_at_seconds - now
    return ModelCoolingDownError(
        f"model {model!r} failed to load ({instance.failure.message}); "
        f"it can be tried again in {left:.0f} s",
        retry_after_seconds=left,
    )


def too_large(instance: Instance, model: str, ledger: Ledger) -> LLMRouterError | None:
    """Refuse what would not fit if nothing else were loaded."""
    if not instance.prices or instance.state in ON_ITS_WAY or instance.state in ASLEEP:
        return None
    short = [_short(demand(price, instance.terms), ledger) for price in instance.prices]
    if not all(short):
        return None
    least = min(short, key=lambda each: sum(needed - there for needed, there in each.values()))
    return ModelTooLargeError(
        f"model {model} can never fit: {_in_words(least)} that other programs and the margin "
        "leave; use a smaller model, context or margin",
        devices=_by_device(least),
    )


def queue_full(instance: Instance, queue: Queue, limits: Limits) -> LLMRouterError | None:
    """Refuse what would have to wait where enough wait already."""
    if instance.state is InstanceState.LOADED:
        return None
    if 0 < limits.max_queue <= len(queue):
        return QueueFullError(
            f"{len(queue)} requests wait already (max_queue); send it again later",
            retry_after_seconds=1.0,
        )
    if limits.max_queue_per_model:
        waiting = queue.waiting(instance.key)
        if waiting >= limits.max_queue_per_model:
            return QueueFullError(
                f"{waiting} requests wait for {instance.key} already (max_queue_per_model); "
                "send it again later",
                retry_after_seconds=1.0,
            )
    return None


def timed_out(waiter: Waiter, limits: Limits) -> LLMRouterError:
    """Refuse what has waited for too long."""
    patience = waiter.until_seconds - waiter.since_seconds
    return QueueTimeoutError(
        f"no room for {', '.join(map(repr, waiter.models))} within {patience:g} s: all instances "
        "are busy, pinned or held",
        retry_after_seconds=max(1.0, limits.max_wait_seconds),
    )


def _short(needs: Amounts, ledger: Ledger) -> dict[str, tuple[int, int]]:
    """Return what there is too little of, with what is needed and what there is."""
    return {
        resource: (amount, ledger.capacity(resource))
        for resource, amount in needs.items()
        if resource != SLOTS and amount > ledger.capacity(resource)
    }


def _in_words(short: Mapping[str, tuple[int, int]]) -> str:
    return "; ".join(
        f"{resource} needs {needed / MIB:.0f} MiB of {max(0, there) / MIB:.0f} MiB"
        for resource, (needed, there) in short.items()
    )


def _by_device(short: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    return {
        resource: {"needed_bytes": needed, "available_bytes": max(0, there)}
        for resource, (needed, there) in short.items()
    }
