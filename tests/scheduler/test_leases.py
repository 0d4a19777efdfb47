"""A lease is given in the step that sees readiness, and while it is out nothing moves."""

from __future__ import annotations

from llm_router_mw.scheduler import Terms, events
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, key


def test_a_request_for_a_cold_model_starts_it_and_is_granted_when_it_is_ready() -> None:
    world = World()
    request = world.ask("a")
    assert world.did == ["start a"]
    assert world.loaded("a") == [f"grant {request}"]
    assert world.state("a") is InstanceState.LOADED


def test_many_requests_for_a_cold_model_cause_one_load() -> None:
    world = World()
    requests = [world.ask("a") for _ in range(5)]
    assert world.did == ["start a"]
    assert world.loaded("a") == [f"grant {request}" for request in requests]


def test_a_loaded_model_is_shared_at_once() -> None:
    world = World()
    world.serve("a")
    request = world.ask("a")
    assert world.did[-1] == f"grant {request}"


def test_a_busy_model_is_never_evicted() -> None:
    world = World()
    busy = world.serve("a")
    world.ask("b")
    assert world.did[-1] == f"grant {busy}"
    assert world.release(busy) == ["stop a"]


def test_a_lease_does_not_last_for_ever() -> None:
    world = World(max_lease_seconds=100)
    (lease,) = world.granted[world.serve("a")]
    world.tick(99)
    assert world.timer == 100
    assert not world.revoked
    world.tick(1)
    assert world.revoked[lease].kind == "LeaseExpiredError"
    assert world.timer is None


def test_leases_run_out_one_by_one() -> None:
    world = World(max_lease_seconds=100)
    first = world.serve("a")
    world.now += 10
    second = world.ask("a")
    world.tick(90)
    assert set(world.revoked) == set(world.granted[first])
    world.tick(10)
    assert set(world.revoked) == {*world.granted[first], *world.granted[second]}


def test_a_lease_released_late_is_nothing() -> None:
    world = World()
    request = world.serve("a")
    world.exited("a")
    assert world.release(request) == []


def test_only_what_is_asked_to_be_held_is_leased() -> None:
    world = World()
    request = world.ask("a", hold=False)
    assert world.loaded("a") == [f"grant {request}"]
    assert world.granted[request] == ()
    world.ask("b")
    assert world.did[-1] == "stop a"


class TestSeveralAtOnce:
    def test_they_are_granted_together(self) -> None:
        world = World(models_max=2)
        request = world.ask("a", "b")
        assert world.did == ["start a", "start b"]
        assert world.loaded("a") == []
        assert world.loaded("b") == [f"grant {request}"]
        assert len(world.granted[request]) == 2

    def test_the_leases_are_in_the_order_of_the_request(self) -> None:
        world = World(models_max=2)
        world.idle("b", "a")
        first, second = world.granted[world.ask("a", "b")]
        world.send(events.Released(first))
        assert world.instance("a").leases == set()
        assert world.instance("b").leases == {second}

    def test_what_is_ready_is_kept_for_the_rest(self) -> None:
        world = World(models_max=2)
        busy = world.serve("x")
        request = world.ask("a", "b")
        assert world.release(busy) == ["start a", "stop x"]
        world.loaded("a")
        world.ask("c")
        assert world.exited("x") == ["start b"]
        assert world.state("a") is InstanceState.LOADED
        assert world.loaded("b")[0] == f"grant {request}"

    def test_two_such_requests_do_not_deadlock(self) -> None:
        world = World(models_max=2)
        world.idle("a", "c")
        first = world.ask("a", "b")
        second = world.ask("c", "d")
        world.exited("c")
        world.loaded("b")
        assert first in world.granted
        world.release(first)
        for name in "ab":
            world.exited(name)
        for name in "cd":
            world.loaded(name)
        assert second in world.granted

    def test_more_than_can_ever_be_held_are_refused(self) -> None:
        world = World(models_max=1)
        request = world.ask("a", "b")
        assert world.rejected[request].kind == "InvalidRequestError"
        assert "models_max is 1" in world.rejected[request].message

    def test_what_waits_for_its_fellow_does_not_fall_asleep(self) -> None:
        world = World(models_max=2)
        world.terms(a=world_terms(5.0))
        request = world.ask("a", "b")
        world.loaded("a")
        assert world.tick(6) == []
        world.loaded("b")
        assert request in world.granted

    def test_once_it_waits_no_more_its_idle_limit_counts_again(self) -> None:
        world = World(models_max=2)
        world.terms(a=world_terms(5.0))
        request = world.ask("a", "b")
        world.loaded("a")
        world.tick(6)
        assert "sleep a full" in world.cancel(request) + world.tick()


def world_terms(sleep_idle_seconds: float) -> Terms:
    return Terms(sleep_idle_seconds=sleep_idle_seconds)


def test_a_cancelled_request_that_was_never_queued_is_nothing() -> None:
    assert World().cancel(99) == []


def test_monitoring_sees_who_holds_what() -> None:
    world = World()
    request = world.serve("a")
    assert world.instance("a").leases == set(world.granted[request])
    assert [instance.key for instance in world.scheduler.instances()] == [key("a")]
