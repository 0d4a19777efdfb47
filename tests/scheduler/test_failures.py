"""Loads that fail, workers that die: who is told, and when it is tried again."""

from __future__ import annotations

import pytest

from llm_router_mw.scheduler import Terms, events
from llm_router_mw.types import Failure, InstanceState
from tests.support.scheduling import World, key


def test_all_waiters_hear_of_it_and_the_slot_is_free_after_the_exit() -> None:
    world = World()
    first, second = world.ask("a"), world.ask("a")
    waiting = world.ask("b")
    assert world.load_failed("a") == [
        f"reject {first}: ModelLoadError",
        f"reject {second}: ModelLoadError",
    ]
    assert world.exited("a") == ["start b"]
    assert world.state("a") is InstanceState.FAILED
    assert world.loaded("b") == [f"grant {waiting}"]


def test_the_model_cools_down_longer_each_time() -> None:
    world = World()
    pauses = []
    for _ in range(7):
        world.ask("a")
        world.fail("a")
        refused = world.rejected[world.ask("a")]
        assert refused.kind == "ModelCoolingDownError"
        pauses.append(refused.fields["retry_after_seconds"])
        world.now += pauses[-1]
    assert pauses == [10, 20, 40, 80, 160, 300, 300]


def test_success_ends_the_counting() -> None:
    world = World()
    world.ask("a")
    world.fail("a")
    world.now += 10
    world.release(world.serve("a"))
    assert world.instance("a").failures == 0


def test_a_load_by_hand_is_tried_at_once() -> None:
    world = World()
    world.ask("a")
    world.fail("a")
    world.ask("a", hold=False)
    assert world.did[-1] == "start a"


def test_unloading_by_hand_clears_the_failure() -> None:
    world = World()
    world.ask("a")
    world.fail("a")
    world.unload("a")
    assert world.state("a") is InstanceState.UNLOADED
    world.ask("a")
    assert world.did[-1] == "start a"


def test_a_worker_that_dies_while_it_loads_has_failed() -> None:
    world = World()
    request = world.ask("a")
    world.exited("a")
    assert world.rejected[request].kind == "ModelLoadError"
    assert "exited with code 0" in world.rejected[request].message
    assert world.state("a") is InstanceState.FAILED


def test_a_model_that_cannot_be_priced_is_not_loaded() -> None:
    world = World()
    world.keep_prices_waiting = True
    request = world.ask("a")
    failure = Failure(kind="ModelFileError", message="there is no such file")
    assert world.send(events.PriceFailed(instance=key("a"), failure=failure)) == [
        f"reject {request}: ModelFileError"
    ]
    world.asked_prices.clear()
    world.ask("a")
    assert world.asked_prices == ["a"]


class TestWakes:
    def test_a_failed_wake_is_a_failed_load(self) -> None:
        world = World()
        world.asleep("a")
        request = world.ask("a")
        assert world.load_failed("a") == [f"reject {request}: ModelLoadError"]
        world.exited("a")
        assert world.rejected[world.ask("a")].kind == "ModelCoolingDownError"

    def test_a_worker_that_dies_while_it_wakes_has_failed(self) -> None:
        world = World()
        world.asleep("a")
        request = world.ask("a")
        world.exited("a")
        assert world.rejected[request].kind == "ModelLoadError"
        assert world.state("a") is InstanceState.FAILED


class TestOutOfMemory:
    def test_it_is_tried_once_more_and_those_who_wait_go_on_waiting(self) -> None:
        world = World()
        request = world.ask("a")
        assert world.load_failed("a", out_of_memory=True) == []
        assert world.exited("a") == ["start a"]
        assert world.loaded("a") == [f"grant {request}"]

    def test_the_second_time_it_has_failed(self) -> None:
        world = World()
        request = world.ask("a")
        world.fail("a", out_of_memory=True)
        assert world.load_failed("a", out_of_memory=True) == [f"reject {request}: ModelLoadError"]
        world.exited("a")
        assert world.rejected[world.ask("a")].kind == "ModelCoolingDownError"

    def test_it_is_charged_a_quarter_more(self) -> None:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.sizes(a=40, b=50)
        world.idle("b")
        world.ask("a")
        assert world.load_failed("a", out_of_memory=True) == []
        assert world.scheduler.ledger.charged("gpu") == 90
        assert world.exited("a") == ["start a"]
        assert world.scheduler.ledger.charged("gpu") == 100

    def test_others_go_for_what_it_needs_more(self) -> None:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.sizes(a=45, b=50)
        world.idle("b")
        world.ask("a")
        assert world.fail("a", out_of_memory=True) == ["stop b"]
        assert world.exited("b") == ["start a"]

    def test_more_than_there_is_is_not_asked_for(self) -> None:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.sizes(a=90)
        world.ask("a")
        assert world.fail("a", out_of_memory=True) == ["start a"]
        assert world.scheduler.ledger.charged("gpu") <= 112

    def test_where_no_price_is_known_all_idle_ones_go_first(self) -> None:
        world = World(models_max=0)
        world.terms(pinned=Terms(pinned=True))
        world.idle("b", "c", "pinned")
        busy = world.serve("d")
        world.ask("a")
        assert world.load_failed("a", out_of_memory=True) == ["stop b", "stop c"]
        assert world.exited("a") == []
        assert world.exited("b") == []
        assert world.exited("c") == ["start a"]
        assert busy in world.granted

    def test_success_makes_it_believe_the_price_again(self) -> None:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.sizes(a=40)
        world.ask("a")
        world.fail("a", out_of_memory=True)
        world.loaded("a", gpu=44)
        assert world.scheduler.ledger.charged("gpu") == 44
        world.unload("a")
        world.exited("a")
        world.ask("a")
        assert world.scheduler.ledger.charged("gpu") == 40


class TestCrashes:
    def test_leases_end_and_the_next_request_reloads(self) -> None:
        world = World()
        request = world.serve("a")
        world.exited("a")
        (lease,) = world.granted[request]
        assert world.revoked[lease].kind == "WorkerDiedError"
        assert world.state("a") is InstanceState.UNLOADED
        world.ask("a")
        assert world.did[-1] == "start a"

    def test_its_memory_returns(self) -> None:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.sizes(a=60)
        world.serve("a")
        world.exited("a")
        assert world.scheduler.ledger.charged("gpu") == 0

    def test_the_end_of_a_draining_worker_stops_nothing_twice(self) -> None:
        world = World(max_wait_seconds=30)
        world.serve("a")
        world.ask("b")
        world.tick(30)
        assert world.exited("a") == ["start b"]

    @pytest.mark.parametrize("when", ["falling asleep", "asleep"])
    def test_a_sleeper_that_dies_is_loaded_anew(self, when: str) -> None:
        world = World()
        world.idle("a")
        world.put_to_sleep("a")
        if when == "asleep":
            world.slept("a")
        world.exited("a")
        assert world.state("a") is InstanceState.UNLOADED
        world.ask("a")
        assert world.did[-1] == "start a"
