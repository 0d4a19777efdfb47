"""A guess loads a model only if that costs nobody anything."""

from __future__ import annotations

from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, price


def test_into_free_room_it_is_loaded() -> None:
    world = World()
    assert world.predict("a") == []  # its price was not known
    assert world.predict("a") == ["start a"]
    assert world.loaded("a") == []
    assert world.state("a") is InstanceState.LOADED


def test_it_evicts_nobody() -> None:
    world = World()
    world.idle("a")
    world.predict("b")
    assert world.predict("b") == []


def test_it_waits_for_nothing() -> None:
    world = World()
    world.idle("a")
    world.predict("b")
    world.predict("b")
    world.unload("a")
    assert world.exited("a") == []


def test_while_somebody_waits_nothing_is_guessed() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=60, b=90, c=10)
    world.predict("c")
    world.serve("a")
    world.ask("b")
    assert world.predict("c") == []


def test_it_is_not_placed_badly() -> None:
    world = World(models_max=0)
    world.memory(gpu=50, host=100)
    world.prices["a"] = (price(gpu=60), price(degraded=True, host=60))
    world.predict("a")
    assert world.predict("a") == []


def test_a_sleeper_is_woken() -> None:
    world = World()
    world.asleep("a")
    assert world.predict("a") == ["wake a"]


def test_who_asks_for_it_meanwhile_is_served() -> None:
    world = World()
    world.predict("a")
    world.predict("a")
    request = world.ask("a")
    assert world.loaded("a") == [f"grant {request}"]
    assert world.did.count("start a") == 1


def test_one_who_asks_and_leaves_does_not_end_it() -> None:
    world = World()
    world.predict("a")
    world.predict("a")
    assert world.cancel(world.ask("a")) == []


def test_a_guess_of_long_ago_does_not_keep_a_load_that_nobody_wants() -> None:
    world = World()
    world.predict("a")
    world.predict("a")
    world.loaded("a")
    world.unload("a")
    world.exited("a")
    assert world.cancel(world.ask("a")) == ["stop a"]


def test_what_has_failed_is_not_tried_on_a_guess() -> None:
    world = World()
    world.ask("a")
    world.fail("a")
    assert world.predict("a") == []
