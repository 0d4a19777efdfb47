"""Recorded events decide the same again, and are told in words."""

from __future__ import annotations

from llm_router_mw.scheduler import events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.simulator.event_trace import Setup, event_line, read_event_trace, setup_line
from llm_router_mw.simulator.replay import replay, told
from llm_router_mw.simulator.run import simulate
from tests.support.simulation import Lru, ask, facts, settings, trace


def recorded() -> list[str]:
    """Return the trace of a simulation in which one model gives way to another."""
    limits = Limits(models_max=0, max_queue=0)
    lines = [setup_line(Setup(limits=limits))]
    both = [facts("a"), facts("b")]

    def note(at_seconds: float, event: events.Event) -> None:
        lines.append(event_line(at_seconds, event))

    simulate(trace(both, ask(0.0, "a"), ask(10.0, "b")), settings(), recorder=note)
    return lines


def test_the_same_events_lead_to_the_same_decisions() -> None:
    setup, lines = read_event_trace(recorded())

    steps = list(replay(setup, Lru(), lines))

    names = [type(action).__name__ for _, _, decided in steps for action in decided]
    assert names.count("Start") == 2
    assert names.count("Stop") == 1
    assert names.count("Grant") == 2


def test_a_step_is_told_in_words() -> None:
    setup, lines = read_event_trace(recorded())

    shown = "\n".join(told(*step) for step in replay(setup, Lru(), lines))

    assert "     0.000  Request(id=1, instances=(a), models=(a))" in shown
    assert "            → Stop(instance=a, generation=1)" in shown
    assert "MemoryObserved(pools={gpu: PoolReading(total_bytes=10, free_bytes=10)})" in shown
    assert "evicted to make room for 'b'" in shown
