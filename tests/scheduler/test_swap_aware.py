"""What is resident is served before it is given up, until somebody has waited long enough."""

from __future__ import annotations

from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, reading


def test_before_that_the_resident_model_is_served() -> None:
    world = World(max_wait_seconds=30)
    world.serve("a")
    world.ask("b")
    world.tick(29)
    assert world.ask("a") in world.granted


def test_after_it_a_busy_model_drains_and_takes_no_more() -> None:
    world = World(max_wait_seconds=30)
    busy = world.serve("a")
    waiting = world.ask("b")
    assert world.timer == 30
    world.tick(30)
    assert world.state("a") is InstanceState.DRAINING
    late = world.ask("a")
    assert late not in world.granted
    assert world.release(busy) == ["stop a"]
    assert world.exited("a") == ["start b"]
    assert world.loaded("b") == [f"grant {waiting}"]
    assert late not in world.granted


def test_the_least_recently_used_busy_model_drains() -> None:
    world = World(models_max=2, max_wait_seconds=30)
    world.serve("a")
    world.now += 1
    world.serve("b")
    world.ask("c")
    world.tick(31)
    assert world.state("a") is InstanceState.DRAINING
    assert world.state("b") is InstanceState.LOADED


def test_only_as_many_drain_as_are_needed() -> None:
    world = World(models_max=0, max_wait_seconds=30)
    world.memory(gpu=100)
    world.sizes(a=30, b=30, c=40)
    world.serve("a")
    world.now += 1
    world.serve("b")
    world.ask("c")
    assert world.did[-1] == "start c"
    world.sizes(d=60)
    world.loaded("c")
    world.ask("d")
    world.tick(31)
    draining = [name for name in "abc" if world.state(name) is InstanceState.DRAINING]
    assert draining == ["a", "b"]


def test_idle_ones_go_before_busy_ones_drain() -> None:
    world = World(models_max=2, max_wait_seconds=30)
    world.serve("a")
    world.now += 1
    world.idle("b")
    world.ask("c")
    assert world.did[-1] == "stop b"
    world.tick(31)
    assert world.state("a") is InstanceState.LOADED


def test_a_draining_model_is_spared_when_the_request_leaves() -> None:
    world = World(max_wait_seconds=30)
    busy = world.serve("a")
    waiting = world.ask("b")
    world.tick(30)
    late = world.ask("a")
    assert world.cancel(waiting) == [f"grant {late}"]
    assert world.state("a") is InstanceState.LOADED
    assert world.release(busy) == []


def test_what_a_spared_model_keeps_is_made_up_for_at_once() -> None:
    world = World(models_max=0, max_wait_seconds=30)
    world.memory(gpu=100)
    world.sizes(a=50, c=40, b=15, d=15)
    world.serve("a")
    world.now += 1
    idle_soon = world.serve("c")
    waiting = world.ask("b", "d")
    world.tick(31)
    assert world.state("a") is InstanceState.DRAINING
    world.release(idle_soon)
    # Others take what only the one that drains can make up for.
    assert world.observe({"gpu": reading(100, others=20)}) == []
    assert world.cancel(waiting) == ["stop c"]
    assert world.state("a") is InstanceState.LOADED


def test_a_draining_model_is_spared_when_room_came_from_elsewhere() -> None:
    world = World(models_max=2, max_wait_seconds=30)
    world.serve("a")
    world.now += 1
    world.serve("b")
    world.ask("c")
    world.tick(31)
    assert world.state("a") is InstanceState.DRAINING
    world.exited("b")  # it crashed
    assert world.did[-1] == "start c"
    assert world.state("a") is InstanceState.LOADED


def test_who_finds_room_because_one_was_spared_goes_at_once() -> None:
    world = World(models_max=3, max_wait_seconds=30)
    world.serve("a")
    world.now += 1
    world.serve("b")
    world.now += 1
    world.serve("c")
    world.ask("d")
    world.tick(30)
    late = world.ask("a")
    world.exited("b")
    assert "start d" in world.did
    assert late in world.granted


def test_a_small_one_may_pass_a_large_one_that_idle_victims_cannot_help() -> None:
    world = World(models_max=0, max_wait_seconds=30)
    world.memory(gpu=100)
    world.sizes(a=60, large=90, small=30)
    world.serve("a")
    world.ask("large")
    world.ask("small")
    assert world.did[-1] == "start small"


def test_but_not_once_it_is_overdue() -> None:
    world = World(models_max=0, max_wait_seconds=30)
    world.memory(gpu=100)
    world.sizes(a=60, large=90, small=30)
    busy = world.serve("a")
    world.ask("large")
    world.tick(30)
    world.ask("small")
    assert "start small" not in world.did
    world.release(busy)
    assert world.exited("a") == ["start large"]


def test_two_that_drain_for_each_other_are_both_spared() -> None:
    world = World(models_max=2, max_wait_seconds=30)
    world.serve("f")
    world.now += 1
    world.serve("a")
    blocked = world.ask("c")
    world.tick(30)
    alone = world.ask("f")
    both = world.ask("a", "f")
    world.tick(30)
    assert world.state("f") is InstanceState.DRAINING
    assert world.state("a") is InstanceState.DRAINING
    world.cancel(blocked)
    assert {alone, both} <= set(world.granted)


class TestLeastStay:
    def test_an_idle_model_stays_for_it(self) -> None:
        world = World(min_resident_seconds=10, max_wait_seconds=100)
        world.idle("a")
        world.ask("b")
        assert world.state("a") is InstanceState.LOADED
        assert world.timer == 11
        assert world.tick(10) == ["stop a"]

    def test_unless_somebody_is_overdue(self) -> None:
        world = World(min_resident_seconds=100, max_wait_seconds=20)
        world.idle("a")
        world.ask("b")
        assert world.tick(20) == ["stop a"]


def test_two_alternating_models_are_not_swapped_for_each_request() -> None:
    world = World(max_wait_seconds=30)
    holder = world.serve("a")
    others = [world.ask("b") for _ in range(3)]
    for _ in range(5):
        world.tick(1)
        follower = world.ask("a")
        world.release(holder)
        holder = follower
    assert world.did.count("start b") == 0
    world.release(holder)
    world.exited("a")
    world.loaded("b")
    assert set(others) <= set(world.granted)
