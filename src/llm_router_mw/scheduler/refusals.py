"""Why a request is refused at once, or after it has waited: errors in words, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llm_router_mw.errors import (
    LLMRouterError,
    ModelCoolingDownError,
    ModelNotLoadedError,
    ModelTooLargeError,
    QueueFullError,
    QueueTimeoutError,
)
from llm_router_mw.memory.ledger import Ledger
from llm_router_mw.scheduler import events
from llm_router_mw.scheduler.demand import demand
from llm_router_mw.scheduler.forecast import next_place
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.queue import Queue, Waiter
from llm_router_mw.scheduler.residents import Residents
from llm_router_mw.scheduler.shortage import Shortage, by_device, in_words, lacking, total
from llm_router_mw.scheduler.states import ASLEEP, DOWNLOADING, LOADED, ON_ITS_WAY
from llm_router_mw.types import QueuePlace


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
    """Refuse what would not fit if nothing else ran on the machine.

    What other programs hold does not count: they may give it back, so it is worth waiting for.
    """
    if not instance.prices or instance.state in ON_ITS_WAY or instance.state in ASLEEP:
        return None
    least = _least_short(instance, ledger.most)
    if not least:
        return None
    return ModelTooLargeError(
        f"model {model} can never fit: {in_words(least)} that there are beside the margin; use a "
        "smaller model, context or margin",
        devices=by_device(least),
    )


def queue_full(
    instance: Instance, queue: Queue, residents: Residents, limits: Limits
) -> LLMRouterError | None:
    """Refuse what would have to wait where enough wait already; say what its place would be."""
    if instance.state is LOADED:
        return None
    waiting, whom, option = len(queue), "", "max_queue"
    most = limits.max_queue
    if not 0 < most <= waiting:
        most = limits.max_queue_per_model
        if most <= 0:
            return None
        waiting, whom = queue.waiting(instance.key), f" for {instance.key}"
        option = "max_queue_per_model"
        if most > waiting:
            return None
    place = next_place(queue, residents, instance)
    seconds = place.expected_wait_seconds or 0.0
    return QueueFullError(
        f"{waiting} requests wait{whom} already ({option}); send it again later",
        # By then one of those before it will probably have been served.
        retry_after_seconds=max(1.0, seconds / place.position),
        **_of_place(place),
    )


def timed_out(
    waiter: Waiter,
    wanted: Sequence[Instance],
    place: QueuePlace | None,
    limits: Limits,
    ledger: Ledger,
) -> LLMRouterError:
    """Refuse what has waited for too long for the instances *wanted*, and stands at *place*."""
    patience = waiter.until_seconds - waiter.since_seconds
    known = {} if place is None else _of_place(place)
    if any(each.state is DOWNLOADING for each in wanted):
        return QueueTimeoutError(
            f"{', '.join(map(repr, waiter.models))} could not be downloaded within {patience:g} s; "
            "the download goes on, ask again later",
            retry_after_seconds=max(1.0, limits.max_wait_seconds),
            **known,
        )
    short = next(filter(None, (_least_short(each, ledger.capacity) for each in wanted)), None)
    why = (
        f"{in_words(short)} that other programs and the margin leave"
        if short
        else "all instances are busy, pinned or held"
    )
    return QueueTimeoutError(
        f"no room for {', '.join(map(repr, waiter.models))} within {patience:g} s: {why}",
        retry_after_seconds=max(1.0, limits.max_wait_seconds),
        **known,
        **({"devices": by_device(short)} if short else {}),
    )


def _of_place(place: QueuePlace) -> dict[str, Any]:
    return {
        "position": place.position,
        "expected_wait_seconds": place.expected_wait_seconds,
    }


def _least_short(instance: Instance, there: Callable[[str], int]) -> Shortage | None:
    """Return what *instance* lacks where it lacks least, though all else were gone.

    None if it lacks nothing in some place, or if nobody knows what it needs. *there* says how much
    there is of a resource.
    """
    short = [lacking(demand(price, instance.terms), there) for price in instance.prices or ()]
    if not all(short):
        return None
    return min(short, key=total, default=None)
