"""Short traces, and a machine to play them on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_router_mw.protocols import Candidate, EvictionPolicy, Shortfall
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.run import Settings
from llm_router_mw.simulator.trace import Ask, ModelFacts, Trace
from llm_router_mw.simulator.world import Order
from llm_router_mw.types import Step


class Lru:
    """The default order."""

    name = "lru"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        return sorted(candidates, key=lambda candidate: candidate.last_used_seconds)


def facts(name: str, size: int = 10, load: float = 2.0, parallel: int = 4) -> ModelFacts:
    """A model that gives 100 tokens each second."""
    return ModelFacts(
        model=name,
        size_bytes=size,
        overhead_bytes=1,
        load_seconds=load,
        wake_seconds=load / 2,
        tokens_per_second=100.0,
        parallel=parallel,
    )


def ask(time: float, model: str, tokens: int = 100, key: str = "", priority: int = 0) -> Ask:
    """A request, by default for an answer of one second."""
    return Ask(time=time, model=model, tokens=tokens, key=key, priority=priority)


def trace(models: Iterable[ModelFacts], *asks: Ask) -> Trace:
    return Trace({each.model: each for each in models}, iter(asks))


def settings(
    capacity: int = 10,
    *,
    policy: EvictionPolicy | None = None,
    order: Order = "fair",
    closed_loop: bool = False,
    sleep_idle_seconds: float = -1.0,
    evict_to: Step = "stop",
    **limits: float,
) -> Settings:
    """Return settings with one GPU that has room for *capacity* bytes."""
    return Settings(
        machine=Machine({"gpu": capacity}),
        policy=policy or Lru(),
        limits=Limits(**{"models_max": 0, "max_queue": 0, **limits}),  # type: ignore[arg-type]
        order=order,
        closed_loop=closed_loop,
        sleep_idle_seconds=sleep_idle_seconds,
        evict_to=evict_to,
    )
