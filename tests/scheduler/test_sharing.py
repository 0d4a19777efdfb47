"""Models that share an instance: what holds for it, and whose it is until when."""

from __future__ import annotations

from llm_router_mw.scheduler import Terms
from tests.support.scheduling import World


def shared_world(first: Terms, second: Terms) -> World:
    """Return a world in which ``m`` and ``n`` have used the instance ``a``, and it is idle."""
    world = World()
    world.terms(m=first, n=second)
    requests = [world.ask_shared((name, "a")) for name in "mn"]
    world.loaded("a")
    for request in requests:
        world.release(request)
    return world


def test_they_cost_one_load() -> None:
    world = shared_world(Terms(), Terms())
    assert world.did.count("start a") == 1
    assert world.instance("a").models == {"m", "n"}


def test_it_is_pinned_if_any_of_them_is() -> None:
    world = shared_world(Terms(pinned=True), Terms())
    before = len(world.did)
    world.ask("b")
    assert world.did[before:] == []


def test_the_longest_idle_limit_counts() -> None:
    world = shared_world(Terms(sleep_idle_seconds=5), Terms(sleep_idle_seconds=20))
    assert world.tick(19) == []
    assert world.tick(1) == ["sleep a full"]


def test_no_limit_is_the_longest() -> None:
    world = shared_world(Terms(unload_idle_seconds=5), Terms(unload_idle_seconds=-1))
    assert world.tick(1_000_000) == []


def test_the_mildest_step_counts() -> None:
    world = shared_world(Terms(evict_to="stop"), Terms(evict_to="context"))
    world.ask("b")
    assert world.did[-1] == "sleep a context"


def test_the_mildest_sleep_counts() -> None:
    world = shared_world(
        Terms(sleep_idle_seconds=5, sleep_level="full"),
        Terms(sleep_idle_seconds=5, sleep_level="context"),
    )
    assert world.tick(5) == ["sleep a context"]


def test_the_priority_is_that_of_who_asks() -> None:
    world = World()
    world.terms(m=Terms(priority=0), n=Terms(priority=5))
    busy = world.serve("x")
    world.ask("y")
    world.ask_shared(("m", "a"))
    world.release(busy)
    assert world.exited("x") == ["start y"]


class TestUnload:
    def test_the_instance_ends_with_the_last_of_them(self) -> None:
        world = shared_world(Terms(), Terms())
        assert world.unload("a", model="n") == []
        assert world.unload("a", model="m") == ["stop a"]

    def test_those_who_are_left_decide(self) -> None:
        world = shared_world(Terms(pinned=True), Terms(sleep_idle_seconds=5))
        assert world.tick(100) == []
        assert world.unload("a", model="m") == ["sleep a full"]

    def test_one_who_only_waits_counts_as_long_as_he_waits(self) -> None:
        world = World()
        world.ask_shared(("m", "a"))
        waiting = world.ask_shared(("n", "a"))
        world.cancel(waiting)
        assert world.unload("a", model="m")[0] == "stop a"

    def test_while_somebody_else_waits_it_goes_on_loading(self) -> None:
        world = World()
        world.ask_shared(("m", "a"))
        waiting = world.ask_shared(("n", "a"))
        assert world.unload("a", model="m") == []
        world.loaded("a")
        assert waiting in world.granted

    def test_a_name_that_is_granted_a_lease_is_attached_again(self) -> None:
        world = World(models_max=2)
        world.ask_shared(("m", "a"))
        world.ask_shared(("n", "a"), ("b", "b"))
        world.loaded("a")
        world.unload("a", model="n")
        world.loaded("b")
        assert world.instance("a").models == {"m", "n"}
