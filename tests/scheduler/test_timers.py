"""One timer at a time, never too late; and deadlines that move later cost nothing."""

from __future__ import annotations

from llm_router_mw.scheduler import Terms
from llm_router_mw.scheduler.timers import Timers
from tests.support.scheduling import World


def test_an_idle_scheduler_sets_no_timer() -> None:
    world = World()
    world.ask("a", hold=False)
    world.loaded("a")
    assert world.tick(10_000) == []
    assert world.timer is None


def test_the_earliest_deadline_is_the_timer() -> None:
    world = World(max_wait_seconds=30, queue_timeout_seconds=60, max_lease_seconds=20)
    world.serve("a")
    assert world.timer == 20
    world.ask("b", timeout_seconds=10)
    assert world.timer == 10


def test_a_tick_that_comes_late_does_all_that_is_due() -> None:
    world = World(max_wait_seconds=30, queue_timeout_seconds=60)
    world.serve("a")
    request = world.ask("b")
    assert world.tick(500) == [f"reject {request}: QueueTimeoutError"]


def test_a_tick_that_comes_early_does_nothing() -> None:
    world = World()
    world.terms(a=Terms(sleep_idle_seconds=10))
    world.idle("a")
    assert world.tick(3) == []
    assert world.timer == 11


def test_any_event_does_what_is_due() -> None:
    world = World()
    world.terms(a=Terms(sleep_idle_seconds=10))
    world.idle("a")
    world.now += 10
    assert world.cancel(99) == ["sleep a full"]


def test_terms_said_anew_set_the_timer() -> None:
    world = World()
    world.idle("a")
    world.now += 5
    world.terms(a=Terms(sleep_idle_seconds=10))
    assert world.timer is not None
    assert world.timer <= 11
    world.tick(6)
    assert world.did[-1] == "sleep a full"


class TestTimers:
    def test_things_ring_in_order(self) -> None:
        timers = Timers()
        timers.ring("late", 5.0)
        timers.ring("early", 1.0)
        assert timers.next_seconds == 1.0
        assert list(timers.due(5.0)) == ["early", "late"]
        assert timers.next_seconds is None

    def test_a_thing_rings_once(self) -> None:
        timers = Timers()
        timers.ring("it", 5.0)
        timers.ring("it", 3.0)
        timers.ring("it", 9.0)
        assert timers.next_seconds == 3.0
        assert list(timers.due(10.0)) == ["it"]

    def test_what_is_forgotten_does_not_ring(self) -> None:
        timers = Timers()
        timers.ring("it", 5.0)
        timers.forget("it")
        timers.forget("never set")
        assert timers.next_seconds is None
        assert list(timers.due(10.0)) == []

    def test_what_rings_may_be_set_again_at_once(self) -> None:
        timers = Timers()
        timers.ring("it", 1.0)
        for thing in timers.due(1.0):
            timers.ring(thing, 2.0)
        assert timers.next_seconds == 2.0
