"""Models that must not, or must, be resident together."""

from __future__ import annotations

from llm_router_mw.scheduler import Companion, Terms
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, key

G = Terms(exclusive_groups=("g",))


def test_two_of_a_group_are_never_resident_together() -> None:
    world = World(models_max=0)
    world.terms(a=G, b=G)
    world.idle("a")
    world.ask("b")
    assert world.did[-1] == "stop a"
    assert world.exited("a") == ["start b"]


def test_nor_do_they_load_side_by_side() -> None:
    world = World(models_max=0)
    world.terms(a=G, b=G)
    world.ask("a")
    world.ask("b")
    assert world.did == ["start a"]


def test_others_are_not_concerned() -> None:
    world = World(models_max=0)
    world.terms(a=G, b=Terms(exclusive_groups=("h",)))
    world.ask("a")
    world.ask("b")
    world.ask("c")
    assert world.did == ["start a", "start b", "start c"]


def test_a_sleeper_is_not_resident() -> None:
    world = World(models_max=0)
    world.terms(a=G, b=G)
    world.asleep("a")
    world.ask("b")
    assert world.did[-1] == "start b"


def test_but_it_does_not_wake_beside_another() -> None:
    world = World(models_max=0)
    world.terms(a=G, b=G)
    world.asleep("a")
    world.idle("b")
    world.ask("a")
    assert world.did[-1] == "stop b"
    assert world.exited("b") == ["wake a"]


def test_a_busy_member_is_waited_for() -> None:
    world = World(models_max=0, max_wait_seconds=30)
    world.terms(a=G, b=G)
    world.serve("a")
    world.ask("b")
    world.tick(29)
    assert world.state("a") is InstanceState.LOADED
    world.tick(1)
    assert world.state("a") is InstanceState.DRAINING


def test_the_groups_of_all_who_share_an_instance_count() -> None:
    world = World(models_max=0)
    world.terms(m=Terms(), n=G, b=G)
    first, second = world.ask_shared(("m", "a")), world.ask_shared(("n", "a"))
    world.loaded("a")
    world.release(first)
    world.release(second)
    world.ask("b")
    assert world.did[-1] == "stop a"


def test_one_who_shares_it_later_brings_its_groups() -> None:
    world = World(models_max=0)
    world.terms(m=Terms(), n=G, b=G)
    request = world.ask_shared(("m", "a"))
    world.loaded("a")
    late = world.ask_shared(("n", "a"))
    world.release(request)
    world.release(late)
    world.ask("b")
    assert world.did[-1] == "stop a"


def test_a_group_ends_with_the_model_that_was_in_it() -> None:
    world = World(models_max=0)
    world.terms(m=Terms(), n=G, b=G)
    for request in (world.ask_shared(("m", "a")), world.ask_shared(("n", "a"))):
        world.loaded("a")
        world.release(request)
    world.unload("a", model="n")
    world.ask("b")
    assert world.did[-1] == "start b"


def test_one_who_stops_waiting_takes_his_groups_with_him() -> None:
    world = World(models_max=0)
    world.terms(m=Terms(), n=G, b=G)
    world.serve("b")
    strict = world.ask_shared(("n", "a"))
    world.ask_shared(("m", "a"))
    assert "start a" not in world.did
    assert world.cancel(strict) == ["start a"]


def test_what_is_said_anew_holds_for_what_is_resident() -> None:
    world = World(models_max=0)
    world.idle("a")
    world.terms(a=G, b=G)
    world.ask("b")
    assert world.did[-1] == "stop a"


class TestCompanions:
    def world(self, **limits: int) -> World:
        world = World(models_max=limits.get("models_max", 0))
        world.terms(a=Terms(companions=(Companion("b", key("b")),)))
        return world

    def test_they_are_loaded_together(self) -> None:
        world = self.world()
        request = world.ask("a")
        assert set(world.did) == {"start a", "start b"}
        assert world.loaded("a") == []
        assert world.loaded("b") == [f"grant {request}"]
        assert len(world.granted[request]) == 1

    def test_the_other_one_needs_nobody(self) -> None:
        world = self.world()
        world.ask("b")
        assert world.did == ["start b"]

    def test_one_that_has_gone_is_loaded_again(self) -> None:
        world = self.world()
        request = world.ask("a")
        world.loaded("a")
        world.loaded("b")
        world.release(request)
        world.exited("b")
        again = world.ask("a")
        assert world.did[-1] == "start b"
        assert world.loaded("b") == [f"grant {again}"]

    def test_its_own_terms_hold_for_a_companion(self) -> None:
        world = self.world(models_max=2)
        world.terms(a=Terms(companions=(Companion("b", key("b")),)), b=Terms(pinned=True))
        request = world.ask("a")
        world.loaded("a")
        world.loaded("b")
        world.now += 1
        world.release(request)
        world.ask("c")
        assert world.did[-1] == "stop a"
