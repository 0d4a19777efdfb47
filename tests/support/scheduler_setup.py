"""What a random world is made of: pools, models, prices, limits, and what is said about models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from msgspec import Struct, structs

from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.terms import OFF, Companion, Terms
from llm_router_mw.types import HOST, InstanceKey, LoadOptions, Placement, Price, SleepLevel, Step
from tests.support.scheduler_choices import Choices

SIZES = (10, 20, 30, 45, 60, 80, 95)
"""Of a pool of 100."""
POOL_SIZE = 100
LEVELS: tuple[SleepLevel, ...] = ("full", "context")
_STEPS: tuple[Step, ...] = ("stop", "full", "context")


class Mix(Struct, frozen=True, kw_only=True):
    """What kind of world a promise is tried in; each number is how seldom something is (one in)."""

    weights: Mapping[str, int] = {}
    """How often each move is tried, where that differs from the usual."""
    pools: tuple[tuple[str, ...], ...] = ((HOST,), ("gpu0", HOST), ("gpu0", "gpu1"))
    models: tuple[int, ...] = (5, 3, 4, 7)
    """How many there may be."""
    models_max: tuple[int, ...] = (2, 1, 3, 0)
    workers_max: tuple[int, ...] = (0, 0, 3, 2)
    max_wait: tuple[float, ...] = (30.0, 5.0, 0.0)
    max_queue: tuple[int, ...] = (0, 0, 6)
    min_resident: tuple[float, ...] = (0.0, 0.0, 8.0)
    unpriced: int = 4
    degraded: int = 2
    too_large: int = 12
    pinned: int = 8
    shared: int = 4
    grouped: int = 6
    companions: int = 0
    timed: int = 3
    mild: int = 3
    urgent: int = 4
    remote: int = 0


@dataclass(frozen=True, slots=True)
class ModelKind:
    """A name, the instance behind it, and what that costs."""

    name: str
    key: InstanceKey
    terms: Terms
    prices: tuple[Price, ...]
    is_remote: bool = False
    """Whether its files have yet to be downloaded."""


@dataclass(frozen=True, slots=True)
class Setup:
    limits: Limits
    pools: tuple[str, ...]
    models: tuple[ModelKind, ...]


def random_setup(choices: Choices, mix: Mix) -> Setup:
    """Return a small world; the more bytes of *choices* are zero, the plainer it is."""
    limits = Limits(
        models_max=choices.pick(mix.models_max),
        workers_max=choices.pick(mix.workers_max),
        max_queue=choices.pick(mix.max_queue),
        max_queue_per_model=choices.pick((0, 0, 3)),
        max_wait_seconds=choices.pick(mix.max_wait),
        min_resident_seconds=choices.pick(mix.min_resident),
        queue_timeout_seconds=choices.pick((300.0, 60.0)),
        max_lease_seconds=choices.pick((3600.0, 90.0)),
        max_keep_alive_seconds=200.0,
    )
    pools = choices.pick(mix.pools)
    models: list[ModelKind] = []
    for number in range(choices.pick(mix.models)):
        name = "abcdefghij"[number]
        terms = _terms(choices, mix, limits)
        if models and mix.shared and choices.one_in(mix.shared):
            twin = models[-1]
            models.append(ModelKind(name, twin.key, terms, twin.prices, twin.is_remote))
        else:
            key = InstanceKey(name, LoadOptions())
            prices = _prices(choices, mix, pools)
            is_remote = bool(mix.remote) and choices.one_in(mix.remote)
            models.append(ModelKind(name, key, terms, prices, is_remote))
    if mix.companions and len(models) > 1 and limits.models_max != 1:
        models = _with_companion(models, choices, mix)
    return Setup(limits, pools, tuple(models))


def random_terms(choices: Choices, mix: Mix, limits: Limits) -> Terms:
    """Return what may be said anew of a model while it is in use."""
    return _terms(choices, mix, limits)


def _terms(choices: Choices, mix: Mix, limits: Limits) -> Terms:
    timed = bool(mix.timed) and choices.one_in(mix.timed)
    return Terms(
        priority=choices.pick((1, 2)) if mix.urgent and choices.one_in(mix.urgent) else 0,
        pinned=bool(mix.pinned) and choices.one_in(mix.pinned),
        sleep_idle_seconds=choices.pick((20.0, 5.0, OFF)) if timed else OFF,
        sleep_level=choices.pick(LEVELS) if timed else "full",
        unload_idle_seconds=choices.pick((OFF, 40.0)) if timed else OFF,
        evict_to=choices.pick(_STEPS) if mix.mild and choices.one_in(mix.mild) else "stop",
        exclusive_groups=(
            choices.pick((("g",), ("h",), ("g", "h")))
            if mix.grouped and choices.one_in(mix.grouped)
            else ()
        ),
    )


def _prices(choices: Choices, mix: Mix, pools: tuple[str, ...]) -> tuple[Price, ...]:
    if mix.unpriced and choices.one_in(mix.unpriced):
        return ()
    size = choices.pick(SIZES)
    if mix.too_large and choices.one_in(mix.too_large):
        size = POOL_SIZE + 50
    if len(pools) == 1:
        return (_price({pools[0]: size}),)
    first, second = pools
    best = [_price({first: size})]
    if choices.one_in(3):
        best = [_price({first: size // 2, second: size // 2 + 1})]
    if second != HOST and choices.one_in(2):
        best.append(_price({second: size}))
    if mix.degraded and choices.one_in(mix.degraded):
        best.append(_price({second: size}, degraded=True))
    return tuple(best)


def _price(sizes: Mapping[str, int], *, degraded: bool = False) -> Price:
    return Price(
        placement=Placement(
            devices=tuple(sizes), n_gpu_layers=0 if degraded else -1, degraded=degraded
        ),
        bytes_by_pool=sizes,
        context_bytes_by_pool={pool: size // 5 for pool, size in sizes.items()},
        weights_bytes_by_pool={pool: size * 3 // 5 for pool, size in sizes.items()},
    )


def _with_companion(models: list[ModelKind], choices: Choices, mix: Mix) -> list[ModelKind]:
    """Let the first model need the last one beside it, where the two are not one instance.

    Perhaps the last one needs the first one too.
    """
    first, last = models[0], models[-1]
    if first.key == last.key or not choices.one_in(mix.companions):
        return models
    terms = Terms(companions=(Companion(last.name, last.key),))
    changed = replace(first, terms=terms)
    if choices.one_in(2):
        both = structs.replace(last.terms, companions=(Companion(first.name, first.key),))
        last = replace(last, terms=both)
    return [changed, *models[1:-1], last]
