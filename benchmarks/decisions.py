"""How long the scheduler thinks: single decisions under load, and a million requests.

Both are timed by the processor, since other programs may use the machine meanwhile. Where its clock
counts in steps of milliseconds, as on Windows, single decisions are too short for it.
"""

from __future__ import annotations

import random
import resource
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.figures import percentile
from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.simulator.generate import generate
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.report import Report
from llm_router_mw.simulator.run import Settings, simulate
from llm_router_mw.simulator.trace import Ask, ModelFacts, Trace
from llm_router_mw.simulator.world import World

_MODELS = 1000
_RESIDENT = 50
_CLIENTS = 800
"""Enough for 500 tickets to wait."""
_FAVOURED = 0.2
"""Part of the requests that are for the same few models."""
_KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Decisions:
    """Of single decisions."""

    count: int
    waiting: int
    """Tickets that waited, in the median."""
    p50_seconds: float
    p99_seconds: float
    longest_seconds: float


@dataclass(frozen=True)
class Run:
    """Of a long simulation."""

    report: Report
    seconds: float
    peak_mib: int


class _Stopwatch(Scheduler):
    """A scheduler that takes the time of its decisions."""

    def __init__(self, policy: EvictionPolicy, limits: Limits) -> None:
        super().__init__(policy, limits)
        self.took = array("d")
        self.tickets = array("i")

    def decide(self, event: events.Event, now: float) -> list[actions.Action]:
        before = time.thread_time()
        decided = super().decide(event, now)
        self.took.append(time.thread_time() - before)
        if len(self.took) % 100 == 0:
            self.tickets.append(sum(self.waiting(each.key) > 0 for each in self.instances()))
        return decided


def measure_decisions(policy: EvictionPolicy, requests: int = 20_000) -> Decisions:
    """Time decisions with many models known, many resident and many tickets that wait."""
    trace = _crowd(requests)
    limits = Limits(models_max=_RESIDENT, max_queue=0, queue_timeout_seconds=1e8)
    watch = _Stopwatch(policy, limits)
    terms = {name: Terms() for name in trace.models}
    World(trace, Machine({"gpu": 1 << 50}), watch, terms=terms, closed_loop=True).run()
    begin = len(watch.took) // 2  # by then every model has been asked for
    took = sorted(watch.took[begin:])
    return Decisions(
        count=len(took),
        waiting=int(percentile(watch.tickets, 50)),
        p50_seconds=percentile(took, 50),
        p99_seconds=percentile(took, 99),
        longest_seconds=took[-1],
    )


def measure_run(policy: EvictionPolicy, requests: int = 1_000_000) -> Run:
    """Play many requests over 200 models, of which 50 may be resident."""
    settings = Settings(
        machine=Machine({"gpu": 1 << 42}),
        policy=policy,
        limits=Limits(models_max=_RESIDENT, max_queue=0),
    )
    before = time.process_time()
    report = simulate(generate("zipf", requests, seed=1, models=200), settings)
    seconds = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _KIB_PER_MIB
    return Run(report, seconds, peak)


def _crowd(requests: int) -> Trace:
    """Return requests of clients that each want any model, so that nearly all of them wait."""
    chance = random.Random(1)
    models = {
        name: ModelFacts(model=name, size_bytes=1 << 30, load_seconds=2.0)
        for name in (f"model-{number}" for number in range(_MODELS))
    }
    names = list(models)

    def asks() -> Iterator[Ask]:
        for number in range(requests):
            model = chance.choice(names[:_RESIDENT] if chance.random() < _FAVOURED else names)
            tokens = chance.randint(50, 500)
            yield Ask(time=0.0, model=model, tokens=tokens, key=str(number % _CLIENTS))

    return Trace(models, asks())
