"""Down the ladder and up again: what sleeps is charged what was measured, and waking is a load."""

from __future__ import annotations

from llm_router_mw.scheduler import Terms
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, price


def sleepy(**terms: object) -> World:
    world = World(models_max=2)
    world.terms(a=Terms(**{"sleep_idle_seconds": 10.0, **terms}))  # type: ignore[arg-type]
    return world


def test_an_idle_model_falls_asleep_after_its_time() -> None:
    world = sleepy()
    world.idle("a")
    assert world.timer == 11
    assert world.tick(9) == []
    assert world.tick(1) == ["sleep a full"]
    assert world.state("a") is InstanceState.FALLING_ASLEEP
    assert world.slept("a") == []
    assert world.state("a") is InstanceState.SLEEPING


def test_it_sleeps_as_deep_as_was_said() -> None:
    world = sleepy(sleep_level="context")
    world.idle("a")
    assert world.tick(10) == ["sleep a context"]


def test_the_time_counts_from_readiness_if_nobody_uses_it() -> None:
    world = sleepy()
    world.ask("a", hold=False)
    world.now += 5
    world.loaded("a")
    assert world.tick(9) == []
    assert world.tick(1) == ["sleep a full"]


def test_the_time_counts_from_the_end_of_the_last_lease() -> None:
    world = sleepy()
    request = world.serve("a")
    assert world.tick(60) == []
    world.release(request)
    assert world.tick(9) == []
    assert world.tick(1) == ["sleep a full"]


def test_a_request_sets_the_time_back() -> None:
    world = sleepy()
    world.idle("a")
    world.tick(9)
    world.release(world.ask("a"))
    assert world.tick(9) == []


def test_a_sleeper_ends_after_its_time() -> None:
    world = sleepy(unload_idle_seconds=30.0)
    world.idle("a")
    world.tick(10)
    world.slept("a")
    assert world.tick(20) == ["stop a"]


def test_a_request_wakes_it() -> None:
    world = sleepy()
    world.asleep("a")
    request = world.ask("a")
    assert world.did[-1] == "wake a"
    assert world.state("a") is InstanceState.WAKING
    assert world.woke("a") == [f"grant {request}"]


def test_a_request_that_comes_while_it_falls_asleep_wakes_it_afterwards() -> None:
    world = sleepy()
    world.idle("a")
    world.tick(10)
    request = world.ask("a")
    assert world.did[-1] == "sleep a full"
    assert world.slept("a") == ["wake a"]
    assert world.woke("a") == [f"grant {request}"]


def test_it_needs_no_second_worker_for_that() -> None:
    world = World(models_max=2, workers_max=2)
    world.idle("a", "b")
    world.put_to_sleep("a")
    before = len(world.did)
    world.ask("a")
    assert world.did[before:] == []
    assert world.slept("a") == ["wake a"]


def test_a_wake_that_nobody_waits_for_any_more_goes_on() -> None:
    world = sleepy()
    world.asleep("a")
    world.cancel(world.ask("a"))
    assert world.state("a") in (InstanceState.WAKING, InstanceState.STOPPING)


class TestByHand:
    def test_an_idle_one_sleeps_at_once(self) -> None:
        world = World()
        world.idle("a")
        assert world.put_to_sleep("a", "context") == ["sleep a context"]

    def test_a_busy_one_drains_first(self) -> None:
        world = World()
        request = world.serve("a")
        assert world.put_to_sleep("a") == []
        assert world.state("a") is InstanceState.DRAINING
        assert world.release(request) == ["sleep a full"]

    def test_who_comes_meanwhile_wakes_it(self) -> None:
        world = World()
        first = world.serve("a")
        world.put_to_sleep("a")
        second = world.ask("a")
        world.release(first)
        assert world.slept("a") == ["wake a"]
        assert world.woke("a") == [f"grant {second}"]

    def test_what_is_not_loaded_stays_as_it_is(self) -> None:
        world = World()
        assert world.put_to_sleep("a") == []
        world.ask("a")
        assert world.put_to_sleep("a") == []
        assert world.state("a") is InstanceState.LOADING


class TestMemory:
    def world(self) -> World:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.prices["a"] = (price(gpu=80, context={"gpu": 20}, weights={"gpu": 50}),)
        return world

    def test_a_sleeper_is_charged_what_was_measured(self) -> None:
        world = self.world()
        world.asleep("a", gpu=33)
        assert world.scheduler.ledger.charged("gpu") == 33

    def test_where_nothing_was_measured_the_price_tells(self) -> None:
        world = self.world()
        world.asleep("a")
        assert world.scheduler.ledger.charged("gpu") == 10
        world = self.world()
        world.asleep("a", "context")
        assert world.scheduler.ledger.charged("gpu") == 60

    def test_until_then_it_is_charged_in_full(self) -> None:
        world = self.world()
        world.idle("a")
        world.put_to_sleep("a")
        assert world.scheduler.ledger.charged("gpu") == 80

    def test_waking_passes_through_the_ledger(self) -> None:
        world = self.world()
        world.sizes(b=60)
        world.asleep("a", gpu=10)
        busy = world.serve("b")
        request = world.ask("a")
        assert "wake a" not in world.did
        assert world.release(busy) == ["stop b"]
        assert world.exited("b") == ["wake a"]
        assert world.scheduler.ledger.charged("gpu") == 80
        assert world.woke("a", gpu=75) == [f"grant {request}"]
        assert world.scheduler.ledger.charged("gpu") == 75

    def test_a_wake_that_is_held_back_sleeps_on_as_it_was(self) -> None:
        world = self.world()
        world.asleep("a", gpu=33)
        request = world.ask("a")
        assert world.scheduler.ledger.charged("gpu") == 80
        assert world.deferred("a") == []
        assert world.state("a") is InstanceState.SLEEPING
        assert world.scheduler.ledger.charged("gpu") == 33
        assert (world.instance("a").failures, world.instance("a").level) == (0, "full")
        assert world.tick(1.0) == ["wake a"]
        assert world.woke("a") == [f"grant {request}"]

    def test_one_that_is_held_back_and_wanted_no_more_sleeps_for_its_time(self) -> None:
        world = self.world()
        world.terms(a=Terms(unload_idle_seconds=20.0))
        world.asleep("a", gpu=33)
        request = world.ask("a")
        world.deferred("a")
        world.cancel(request)
        assert world.tick(20.0) == ["stop a"]

    def test_one_that_holds_more_than_it_needs_is_charged_that(self) -> None:
        world = self.world()
        world.asleep("a", gpu=90)
        world.ask("a")
        assert world.did[-1] == "wake a"
        assert world.scheduler.ledger.charged("gpu") == 90

    def test_what_it_holds_is_its_own_where_it_goes_to_another_place(self) -> None:
        world = World(models_max=0)
        world.memory(gpu=100, host=100)
        world.prices["a"] = (price(gpu=80, host=20), price(host=80))
        world.asleep("a", gpu=5, host=30)
        world.memory(gpu=100, others=50)
        world.ask("a")
        # 70 of the host's are free, and 30 more when its process has gone.
        assert world.did[-1] == "stop a"
        assert world.exited("a") == ["start a"]


def test_a_sleeper_gives_all_that_it_has_so_nobody_else_has_to_go() -> None:
    world = World(models_max=0, workers_max=2)
    world.memory(gpu=100)
    world.prices["b"] = (price(gpu=80, context={"gpu": 20}, weights={"gpu": 50}),)
    world.sizes(c=45)
    world.terms(b=Terms(evict_to="full"))
    world.idle("a")
    world.asleep("b", "context")
    world.ask("c")
    assert world.did[-1] == "stop b"
    assert world.state("a") is InstanceState.LOADED
