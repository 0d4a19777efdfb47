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


class TestInseparable:
    """Companions of each other, as the members of a group that must be together."""

    def world(self, **terms: Terms) -> World:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.sizes(a=30, b=30, c=30, d=60)
        pair = {
            "a": Terms(companions=(Companion("b", key("b")),)),
            "b": Terms(companions=(Companion("a", key("a")),)),
        }
        world.terms(**{**pair, **terms})
        return world

    def idle_pair(self, **terms: Terms) -> World:
        world = self.world(**terms)
        request = world.ask("a")
        world.loaded("a")
        world.loaded("b")
        world.now += 1
        world.release(request)
        return world

    def test_they_are_evicted_together_though_one_would_do(self) -> None:
        world = self.idle_pair()
        world.ask("d")
        assert set(world.did[-2:]) == {"stop a", "stop b"}

    def test_nobody_else_goes_whom_they_make_needless(self) -> None:
        world = self.idle_pair()
        world.now += 1
        world.idle("c")
        world.ask("d")
        assert "stop c" not in world.did

    def test_a_busy_one_keeps_the_other(self) -> None:
        world = self.idle_pair()
        world.ask("b")
        world.idle("c")
        world.ask("d")
        assert world.state("a") is world.state("b") is InstanceState.LOADED

    def test_so_does_a_pinned_one(self) -> None:
        pinned = Terms(companions=(Companion("a", key("a")),), pinned=True)
        world = self.idle_pair(b=pinned)
        world.ask("d")
        assert world.state("a") is InstanceState.LOADED

    def test_they_drain_together_for_one_that_has_waited_long_enough(self) -> None:
        world = self.idle_pair()
        world.ask("b")
        world.ask("d")
        world.tick(30)
        assert world.state("b") is InstanceState.DRAINING
        assert world.did[-1] == "stop a"

    def test_they_go_together_when_others_take_their_memory(self) -> None:
        world = self.idle_pair()
        world.memory(gpu=50)
        assert set(world.did[-2:]) == {"stop a", "stop b"}

    def test_a_busy_pair_is_not_torn_apart_by_that_and_others_go(self) -> None:
        world = self.idle_pair()
        world.ask("b")
        world.idle("c")
        assert world.memory(gpu=50) == ["stop c"]

    def test_who_is_idle_for_too_long_waits_for_the_other(self) -> None:
        soon = Terms(companions=(Companion("b", key("b")),), unload_idle_seconds=10)
        late = Terms(companions=(Companion("a", key("a")),), unload_idle_seconds=30)
        world = self.idle_pair(a=soon, b=late)
        assert world.tick(10) == []
        assert set(world.tick(20)) == {"stop a", "stop b"}

    def test_what_a_request_says_of_the_time_after_it_holds_for_all_that_came_with_it(self) -> None:
        world = self.world()
        request = world.ask("a", keep_alive_seconds=0.0)
        world.loaded("a")
        world.loaded("b")
        assert set(world.release(request)) == {"stop a", "stop b"}

    def test_by_hand_one_can_be_unloaded_alone(self) -> None:
        world = self.idle_pair()
        assert world.unload("a") == ["stop a"]

    def test_one_whose_worker_died_leaves_the_other(self) -> None:
        world = self.idle_pair()
        assert world.exited("a") == []
        assert world.state("b") is InstanceState.LOADED

    def test_when_memory_ran_out_and_nobody_knows_why_only_whole_groups_go(self) -> None:
        world = self.idle_pair()
        world.ask("b")
        world.idle("c")
        world.ask("unknown")
        world.load_failed("unknown", out_of_memory=True)
        assert "stop c" in world.did
        assert "stop a" not in world.did

    def test_none_of_them_is_loaded_on_a_guess_alone(self) -> None:
        world = self.world()
        world.predict("a")
        world.predict("a")
        assert world.did == []


def test_who_needs_another_goes_rather_than_both() -> None:
    world = World(models_max=2)
    world.terms(a=Terms(companions=(Companion("b", key("b")),)))
    request = world.ask("a")
    world.loaded("a")
    world.loaded("b")
    world.now += 1  # so that b has been idle for longer
    world.release(request)
    world.ask("c")
    assert world.did[-1] == "stop a"
    assert world.state("b") is InstanceState.LOADED
