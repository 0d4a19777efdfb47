"""What the scheduler is for: fewer swaps than strict order, and policies that pay off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llm_router_mw.config import RouterConfig
from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.router.registry import load_registry
from llm_router_mw.simulator.generate import generate
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.run import Settings, simulate
from llm_router_mw.simulator.trace import Ask, Trace
from tests.support.simulation import ask, facts, settings, trace

CLIENTS, REQUESTS = 6, 4
GIB = 1 << 30


def alternating() -> Trace:
    """Clients that alternate between two models, of which one fits; half begin with the other."""

    def asks() -> Iterator[Ask]:
        for place in range(REQUESTS):
            for client in range(CLIENTS):
                yield ask(0.0, "ab"[(place + client) % 2], tokens=30, key=f"client-{client}")

    return trace([facts("a", load=1.5), facts("b", load=1.5)], *asks())


def test_clients_that_alternate_do_not_swap_for_each_request() -> None:
    fair = simulate(alternating(), settings(closed_loop=True))
    strict = simulate(alternating(), settings(closed_loop=True, order="fifo"))

    assert fair.requests == strict.requests == CLIENTS * REQUESTS
    assert fair.loads <= 6  # five phases are the fewest possible
    assert fair.makespan_seconds <= 0.4 * strict.makespan_seconds
    assert fair.longest_wait_seconds <= 30.0 + 0.3 + 0.5 + 1.5


def stalled(kind: str, seed: int, policy: EvictionPolicy) -> float:
    gib = {"agent": 120, "zipf": 192}[kind]
    played = simulate(
        generate(kind, 2000, seed),
        Settings(
            machine=Machine({"gpu": gib * GIB}, margin_bytes=GIB),
            policy=policy,
            closed_loop=kind == "agent",
        ),
    )
    assert not played.refused
    return played.stalled_seconds


@pytest.mark.parametrize("kind", ["agent", "zipf"])
def test_to_know_what_a_reload_costs_saves_a_fifth_of_the_waiting(kind: str) -> None:
    registry = load_registry(RouterConfig())
    seeds = (1, 2, 3, 4, 5)

    lru = sum(stalled(kind, seed, registry.policy("lru")) for seed in seeds)
    cost_aware = sum(stalled(kind, seed, registry.policy("cost-aware")) for seed in seeds)

    assert cost_aware <= 0.8 * lru
