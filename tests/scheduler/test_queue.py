"""Who waits, in which order, how long, and who is not let wait at all."""

from __future__ import annotations

import pytest

from llm_router_mw.scheduler import Terms
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, key


def test_an_older_request_gets_the_free_slot_first() -> None:
    world = World()
    busy = world.serve("a")
    first = world.ask("b")
    world.ask("c")
    world.release(busy)
    assert world.exited("a") == ["start b"]
    assert world.loaded("b") == [f"grant {first}"]


def test_a_request_of_higher_priority_goes_before_older_ones() -> None:
    world = World()
    busy = world.serve("a")
    world.ask("b")
    world.ask("c", priority=1)
    world.release(busy)
    assert world.exited("a") == ["start c"]


def test_a_model_of_higher_priority_goes_before_older_requests() -> None:
    world = World()
    world.terms(c=Terms(priority=5))
    busy = world.serve("a")
    world.ask("b", priority=1)
    world.ask("c")
    world.release(busy)
    assert world.exited("a") == ["start c"]


def test_the_priority_of_a_ticket_is_the_highest_of_its_requests() -> None:
    world = World()
    busy = world.serve("a")
    world.ask("b")
    world.ask("c")
    urgent = world.ask("c", priority=1)
    world.release(busy)
    assert world.exited("a") == ["start c"]
    world.cancel(urgent)
    assert world.state("c") is InstanceState.LOADING


def test_a_priority_leaves_with_its_request() -> None:
    world = World()
    busy = world.serve("a")
    world.ask("b")
    world.ask("c")
    world.cancel(world.ask("c", priority=1))
    world.release(busy)
    assert world.exited("a") == ["start b"]


def test_who_is_overdue_goes_before_any_priority() -> None:
    world = World(max_wait_seconds=30)
    busy = world.serve("a")
    world.ask("b")
    world.tick(30)
    world.ask("c", priority=9)
    world.release(busy)
    assert world.exited("a") == ["start b"]


def test_two_cold_models_load_side_by_side() -> None:
    world = World(models_max=2)
    world.ask("a")
    world.ask("b")
    assert world.did == ["start a", "start b"]


def test_a_blocked_request_does_not_block_an_unrelated_one() -> None:
    world = World(models_max=2)
    world.serve("a")
    world.serve("b")
    world.ask("c")
    request = world.ask("b")
    assert world.did[-1] == f"grant {request}"


def test_one_that_waits_for_its_price_blocks_nobody() -> None:
    world = World()
    world.keep_prices_waiting = True
    world.ask("a")
    world.ask("b")
    world.priced("b", ())
    assert world.did == ["start b"]


class TestPatience:
    def test_a_request_does_not_wait_for_ever(self) -> None:
        world = World(queue_timeout_seconds=60, max_wait_seconds=1000)
        world.serve("a")
        request = world.ask("b")
        assert world.timer == 60
        assert world.tick(60) == [f"reject {request}: QueueTimeoutError"]
        assert world.rejected[request].fields["retry_after_seconds"] == 1000

    def test_the_time_to_ask_again_is_never_at_once(self) -> None:
        world = World(queue_timeout_seconds=60, max_wait_seconds=0)
        world.keep_prices_waiting = True
        request = world.ask("a")
        world.tick(60)
        assert world.rejected[request].fields["retry_after_seconds"] == 1.0

    def test_a_request_may_be_less_patient(self) -> None:
        world = World(queue_timeout_seconds=60, max_wait_seconds=1000)
        world.serve("a")
        request = world.ask("b", timeout_seconds=10)
        assert world.tick(10) == [f"reject {request}: QueueTimeoutError"]

    def test_a_request_may_not_be_more_patient(self) -> None:
        world = World(queue_timeout_seconds=60, max_wait_seconds=1000)
        world.serve("a")
        request = world.ask("b", timeout_seconds=100)
        assert world.tick(60) == [f"reject {request}: QueueTimeoutError"]

    # At the second time, the difference of times is a little less than the limit.
    @pytest.mark.parametrize("arrival", [0.0, 4.1])
    def test_a_load_of_its_own_may_take_longer(self, arrival: float) -> None:
        world = World(queue_timeout_seconds=60)
        world.tick(arrival)
        request = world.ask("a")
        assert world.tick(100) == []
        assert world.loaded("a") == [f"grant {request}"]

    def test_but_not_if_the_request_said_how_long(self) -> None:
        world = World()
        request = world.ask("a", timeout_seconds=10)
        assert world.tick(10) == [f"reject {request}: QueueTimeoutError", "stop a"]

    def test_nor_if_the_load_comes_to_nothing(self) -> None:
        world = World(queue_timeout_seconds=60)
        request = world.ask("a")
        world.tick(60)
        assert world.load_failed("a", out_of_memory=True) == [
            f"reject {request}: QueueTimeoutError"
        ]

    def test_when_the_oldest_leaves_the_next_one_is_overdue_in_its_own_time(self) -> None:
        world = World(max_wait_seconds=30, queue_timeout_seconds=50)
        world.serve("a")
        world.ask("b")
        world.now += 25
        world.ask("b")
        world.tick(5)
        assert world.state("a") is InstanceState.DRAINING
        world.tick(20)
        assert world.timer == 55
        world.tick(5)
        assert world.state("a") is InstanceState.DRAINING

    def test_who_comes_later_waits_for_his_own_time(self) -> None:
        world = World(max_wait_seconds=30)
        world.serve("a")
        first = world.ask("b")
        world.now += 10
        world.ask("b")
        world.cancel(first)
        world.tick(20)
        assert world.state("a") is InstanceState.LOADED
        assert world.timer == 40
        world.tick(10)
        assert world.state("a") is InstanceState.DRAINING


class TestFullQueue:
    def test_one_too_many_is_refused(self) -> None:
        world = World(max_queue=2)
        world.serve("a")
        waiting = [world.ask("b"), world.ask("c")]
        refused = world.ask("b")
        assert world.rejected[refused].kind == "QueueFullError"
        assert world.rejected[refused].fields["retry_after_seconds"] > 0
        assert not set(waiting) & set(world.rejected)

    def test_whoever_is_refused_hears_where_he_would_have_stood(self) -> None:
        world = World(max_queue=2)
        for name in "abc":
            world.serve(name)
            world.unload(name, force=True)
            world.exited(name)
        world.serve("a")
        world.ask("b")
        world.ask("c")
        new, same = world.rejected[world.ask("d")], world.rejected[world.ask("c")]
        assert (new.fields["position"], new.fields["expected_wait_seconds"]) == (3, 4.0)
        assert (same.fields["position"], same.fields["expected_wait_seconds"]) == (2, 2.0)
        assert new.fields["retry_after_seconds"] == pytest.approx(4 / 3)
        assert same.fields["retry_after_seconds"] == 1.0

    def test_what_is_loaded_is_served_all_the_same(self) -> None:
        world = World(max_queue=1)
        world.serve("a")
        world.ask("b")
        assert world.ask("a") in world.granted

    def test_who_leaves_makes_room(self) -> None:
        world = World(max_queue=1)
        world.serve("a")
        world.cancel(world.ask("b"))
        assert world.ask("b") not in world.rejected

    def test_each_model_has_its_own_limit(self) -> None:
        world = World(max_queue_per_model=1)
        world.serve("a")
        world.ask("b")
        assert world.rejected[world.ask("b")].kind == "QueueFullError"
        assert world.ask("c") not in world.rejected


class TestAutoloadOff:
    def test_an_unloaded_model_is_refused(self) -> None:
        world = World()
        request = world.ask("a", autoload=False)
        assert world.rejected[request].kind == "ModelNotLoadedError"

    def test_a_model_on_its_way_out_is_refused(self) -> None:
        world = World()
        world.serve("a")
        world.unload("a")
        request = world.ask("a", autoload=False)
        assert world.rejected[request].kind == "ModelNotLoadedError"

    def test_a_loading_model_is_waited_for(self) -> None:
        world = World()
        world.ask("a")
        request = world.ask("a", autoload=False)
        world.loaded("a")
        assert request in world.granted

    def test_a_sleeping_model_is_woken(self) -> None:
        world = World()
        world.asleep("a")
        world.ask("a", autoload=False)
        assert world.did[-1] == "wake a"


class TestPlace:
    def test_the_next_one_is_the_first(self) -> None:
        world = World()
        world.serve("a")
        places = [world.scheduler.queue_place(world.ask(name)) for name in "bc"]
        assert [place.position for place in places if place is not None] == [1, 2]

    def test_the_wait_is_that_for_the_loads_before_and_its_own(self) -> None:
        world = World()
        for name in "bc":
            world.idle(name)
            world.unload(name)
            world.exited(name)
        world.serve("a")
        world.ask("b")
        place = world.scheduler.queue_place(world.ask("c"))
        assert place is not None
        assert place.expected_wait_seconds == pytest.approx(2.0)

    def test_a_model_never_loaded_is_judged_by_its_size(self) -> None:
        world = World()
        world.serve("a")
        world.sizes(b=7_000_000_000)
        place = world.scheduler.queue_place(world.ask("b"))
        assert place is not None
        assert place.expected_wait_seconds == pytest.approx(7.0)

    def test_an_instance_has_the_best_place_of_those_who_wait_for_it(self) -> None:
        world = World(models_max=2)
        world.serve("a")
        world.serve("x")
        for name in "bc":
            world.ask(name)
        world.ask("c", "b")
        place = world.scheduler.place_of(key("c"))
        assert place is not None
        assert place.position == 2
        assert world.scheduler.place_of(key("a")) is None
        assert world.scheduler.total_waiting == 3

    def test_who_does_not_wait_has_no_place(self) -> None:
        world = World()
        assert world.scheduler.queue_place(world.serve("a")) is None


def test_monitoring_sees_the_queue() -> None:
    world = World()
    world.serve("a")
    world.ask("b")
    world.ask("b")
    assert world.scheduler.waiting(key("b")) == 2
    assert world.scheduler.waiting(key("a")) == 0
