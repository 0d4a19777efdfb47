"""Of several placements the first that fits is taken, or the one that is cheapest to make fit."""

from __future__ import annotations

from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, price

ANYWHERE = (price(gpu0=60), price(gpu1=60), price(degraded=True, host=60))


def two_gpus(**limits: int) -> World:
    world = World(models_max=limits.get("models_max", 0))
    world.memory(gpu0=100, gpu1=100, host=100)
    return world


def place_of(world: World, name: str) -> tuple[str, ...]:
    started = world.started[name]
    assert started is not None
    return started.placement.devices


def test_the_best_that_fits_is_taken() -> None:
    world = two_gpus()
    world.prices = dict.fromkeys("abc", ANYWHERE)
    for name in "ab":
        world.idle(name)
    assert [place_of(world, name) for name in "ab"] == [("gpu0",), ("gpu1",)]


def test_idle_ones_go_before_anything_is_degraded() -> None:
    world = two_gpus()
    world.prices = dict.fromkeys("abc", ANYWHERE)
    world.idle("a", "b")
    world.ask("c")
    assert world.did[-1] == "stop a"
    world.exited("a")
    assert place_of(world, "c") == ("gpu0",)


def test_where_all_are_busy_a_degraded_place_is_better_than_none() -> None:
    world = two_gpus()
    world.prices = dict.fromkeys("abc", ANYWHERE)
    world.serve("a")
    world.serve("b")
    world.ask("c")
    assert place_of(world, "c") == ("host",)


def test_the_cheapest_to_make_fit_is_taken() -> None:
    world = two_gpus()
    world.prices = {"a": (price(gpu0=50),), "b": (price(gpu0=50),), "c": (price(gpu1=90),)}
    world.idle("a", "b", "c")
    world.prices["d"] = (price(gpu0=80), price(gpu1=80))
    world.ask("d")
    assert world.did[-1] == "stop c"
    world.exited("c")
    assert place_of(world, "d") == ("gpu1",)


def test_a_model_on_two_pools_needs_room_in_both() -> None:
    world = two_gpus()
    world.prices = {"a": (price(gpu1=80),), "b": (price(gpu0=50, gpu1=50),)}
    world.idle("a")
    world.ask("b")
    assert world.did[-1] == "stop a"


def test_an_eviction_on_one_gpu_does_not_hold_up_the_other() -> None:
    world = two_gpus()
    world.prices = {
        "a": (price(gpu0=80),),
        "b": (price(gpu0=80),),
        "c": (price(gpu1=80),),
    }
    world.idle("a")
    world.ask("b")
    world.ask("c")
    assert world.did[-2:] == ["stop a", "start c"]


class TestBetterPlaces:
    def degraded(self) -> tuple[World, int]:
        world = two_gpus()
        world.prices = {
            "a": (price(gpu0=60),),
            "b": (price(gpu0=60), price(degraded=True, host=60)),
        }
        busy = world.serve("a")
        world.release(world.serve("b"))
        assert place_of(world, "b") == ("host",)
        return world, busy

    def test_one_that_was_placed_badly_moves_when_there_is_room(self) -> None:
        world, busy = self.degraded()
        world.unload("a")
        assert "start b" not in world.release(busy)
        assert world.exited("a") == ["stop b"]
        assert world.exited("b") == ["start b"]
        assert place_of(world, "b") == ("gpu0",)
        world.loaded("b")
        assert world.state("b") is InstanceState.LOADED

    def test_it_moves_for_nobody_s_loss(self) -> None:
        world, busy = self.degraded()
        assert world.release(busy) == []

    def test_it_does_not_move_while_it_is_used(self) -> None:
        world, busy = self.degraded()
        user = world.ask("b")
        world.unload("a")
        world.release(busy)
        assert world.exited("a") == []
        assert world.release(user) == ["stop b"]

    def test_what_was_said_of_its_stay_still_holds(self) -> None:
        world, busy = self.degraded()
        world.release(world.ask("b", keep_alive_seconds=50))
        world.unload("a")
        world.release(busy)
        world.exited("a")
        world.exited("b")
        world.loaded("b")
        assert world.tick(50) == ["stop b"]

    def test_a_request_that_comes_meanwhile_is_served_there(self) -> None:
        world, busy = self.degraded()
        world.unload("a")
        world.release(busy)
        world.exited("a")
        request = world.ask("b")
        world.exited("b")
        assert place_of(world, "b") == ("gpu0",)
        assert world.loaded("b") == [f"grant {request}"]

    def test_a_sleeper_wakes_where_there_is_room(self) -> None:
        world = two_gpus()
        world.prices = {"a": (price(gpu0=60), price(gpu1=60)), "b": (price(gpu0=90),)}
        world.asleep("a", gpu0=5)
        world.serve("b")
        request = world.ask("a")
        assert world.did[-1] == "stop a"
        world.exited("a")
        assert place_of(world, "a") == ("gpu1",)
        assert world.loaded("a") == [f"grant {request}"]
