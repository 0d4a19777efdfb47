"""The simulated world: what takes how long, and who waits for whom."""

from __future__ import annotations

import pytest

from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.residence import Residence
from llm_router_mw.simulator.run import simulate
from llm_router_mw.simulator.trace import Trace
from llm_router_mw.simulator.world import World
from tests.support.simulation import Lru, ask, facts, settings, trace


def test_a_request_waits_for_the_load_and_then_for_its_answer() -> None:
    report = simulate(trace([facts("a")], ask(1.0, "a", tokens=300)), settings())

    assert report.loads == 1
    assert report.stalled_seconds == pytest.approx(2.0)
    assert report.makespan_seconds == pytest.approx(1.0 + 2.0 + 3.0)


def test_who_finds_the_model_resident_does_not_wait() -> None:
    report = simulate(trace([facts("a")], ask(0.0, "a"), ask(9.0, "a")), settings())

    assert report.loads == 1
    assert (report.wait_p50_seconds, report.longest_wait_seconds) == (0.0, 2.0)


def test_loads_go_on_beside_each_other() -> None:
    both = [facts("a", size=5), facts("b", size=5)]

    report = simulate(trace(both, ask(0.0, "a"), ask(0.0, "b")), settings())

    assert report.makespan_seconds == pytest.approx(2.0 + 1.0)


def test_a_victim_has_to_stop_before_the_next_is_loaded() -> None:
    both = [facts("a"), facts("b")]

    report = simulate(trace(both, ask(0.0, "a"), ask(10.0, "b")), settings())

    assert (report.loads, report.evictions) == (2, 1)
    assert report.makespan_seconds == pytest.approx(10.0 + 0.5 + 2.0 + 1.0)


def test_a_model_that_comes_back_at_once_is_thrash() -> None:
    both = [facts("a"), facts("b")]
    asks = [ask(0.0, "a"), ask(10.0, "b"), ask(20.0, "a"), ask(200.0, "b")]

    assert simulate(trace(both, *asks), settings()).thrashes == 1


def test_more_answers_than_slots_take_turns() -> None:
    one_slot = [facts("a", parallel=1)]

    report = simulate(trace(one_slot, ask(0.0, "a"), ask(0.0, "a"), ask(0.0, "a")), settings())

    assert report.makespan_seconds == pytest.approx(2.0 + 3 * 1.0)
    assert report.longest_wait_seconds == pytest.approx(2.0)


def test_a_model_that_never_fits_is_refused_and_needs_no_load() -> None:
    report = simulate(trace([facts("a", size=11)], ask(0.0, "a")), settings(10))

    assert report.refused == {"ModelTooLargeError": 1}
    assert (report.loads, report.bound) == (0, 0)


def test_a_lease_that_is_held_too_long_ends() -> None:
    asks = [ask(0.0, "a", tokens=10_000), ask(0.0, "a", tokens=100), ask(0.0, "a", tokens=9000)]

    report = simulate(trace([facts("a", parallel=1)], *asks), settings(max_lease_seconds=30.0))

    assert report.refused == {"LeaseExpiredError": 3}


def test_who_is_never_answered_is_counted_in_the_end() -> None:
    class Mute(Scheduler):
        def decide(self, event: events.Event, now: float) -> list[actions.Action]:
            return []

    world = World(
        trace([facts("a")], ask(0.0, "a")), Machine({"gpu": 10}), Mute(Lru(), Limits()), terms={}
    )

    assert world.run().unanswered == 1


def test_who_waits_longer_than_allowed_is_refused() -> None:
    both = [facts("a"), facts("b")]
    asks = [ask(0.0, "a", tokens=1_000_000), ask(1.0, "b")]

    report = simulate(trace(both, *asks), settings(queue_timeout_seconds=50.0))

    assert report.refused["QueueTimeoutError"] == 1


def test_an_idle_model_sleeps_and_wakes_faster_than_it_loads() -> None:
    asks = [ask(0.0, "a"), ask(60.0, "a")]

    report = simulate(trace([facts("a")], *asks), settings(sleep_idle_seconds=20.0))

    assert (report.loads, report.wakes) == (1, 1)
    assert report.stalled_seconds == pytest.approx(2.0 + 1.0)


def test_a_victim_may_fall_asleep_if_that_is_enough() -> None:
    both = [facts("a"), facts("b", size=9)]
    asks = [ask(0.0, "a"), ask(10.0, "b"), ask(20.0, "a")]

    report = simulate(trace(both, *asks), settings(evict_to="full"))

    assert report.evictions == 2
    assert report.wakes + report.loads == 3


def test_in_a_closed_loop_a_client_waits_for_its_answer() -> None:
    def asks() -> Trace:
        return trace([facts("a")], ask(0.0, "a", key="k"), ask(0.5, "a", key="k"))

    open_loop = simulate(asks(), settings())
    closed_loop = simulate(asks(), settings(closed_loop=True))

    assert open_loop.makespan_seconds == pytest.approx(2.0 + 1.0)
    assert closed_loop.makespan_seconds == pytest.approx(2.0 + 1.0 + 1.0)
    assert closed_loop.stalled_seconds == pytest.approx(2.0)


@pytest.mark.parametrize("refusal", ["too large", "lease"])
def test_a_client_goes_on_after_a_refusal(refusal: str) -> None:
    models = [facts("a"), facts("b", size=11)]
    first = "b" if refusal == "too large" else "a"
    asks = [ask(0.0, first, tokens=9000, key="k"), ask(0.0, "a", key="k")]

    report = simulate(trace(models, *asks), settings(closed_loop=True, max_lease_seconds=30.0))

    assert report.requests == 2
    assert sum(report.refused.values()) == 1


def test_in_strict_order_nobody_passes_who_came_before() -> None:
    both = [facts("a"), facts("b")]
    asks = [ask(0.0, "a", tokens=500), ask(1.0, "b"), ask(2.0, "a"), ask(2.5, "a")]

    fair = simulate(trace(both, *asks), settings())
    strict = simulate(trace(both, *asks), settings(order="fifo"))

    assert (fair.loads, strict.loads) == (2, 3)
    assert strict.requests == 4


def test_in_strict_order_a_refusal_lets_the_next_go_on() -> None:
    models = [facts("a"), facts("huge", size=11)]
    asks = [ask(0.0, "a", tokens=0), ask(1.0, "huge"), ask(1.5, "huge"), ask(1.9, "huge")]

    report = simulate(trace(models, *asks), settings(order="fifo"))

    assert report.refused == {"ModelTooLargeError": 3}
    assert report.unanswered == 0


def test_every_event_is_recorded_with_its_time() -> None:
    told: list[tuple[float, str]] = []

    simulate(
        trace([facts("a")], ask(1.0, "a")),
        settings(),
        recorder=lambda at, event: told.append((at, type(event).__name__)),
    )

    assert told == [
        (0.0, "MemoryObserved"),
        (0.0, "Catalogued"),
        (1.0, "Request"),
        (1.0, "Priced"),
        (3.0, "Loaded"),
        (4.0, "Released"),
    ]


def test_what_was_resident_when_is_collected() -> None:
    residence = Residence()
    both = [facts("a"), facts("b")]

    simulate(trace(both, ask(0.0, "a"), ask(10.0, "b")), settings(), residence=residence)

    assert [(span.model, span.look, span.begins, span.ends) for span in residence.spans] == [
        (0, "loading", 0.0, 2.0),
        (0, "loaded", 2.0, 10.0),
        (0, "leaving", 10.0, 10.5),
        (1, "loading", 10.5, 12.5),
        (1, "loaded", 12.5, 13.5),
    ]


def test_priorities_reach_the_scheduler() -> None:
    seen: list[int] = []

    def note(at_seconds: float, event: events.Event) -> None:
        if isinstance(event, events.Request):
            seen.append(event.priority)

    simulate(trace([facts("a")], ask(0.0, "a", priority=3)), settings(), recorder=note)

    assert seen == [3]
