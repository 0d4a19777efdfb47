"""How long an instance stays, as the last request for each model wishes."""

from __future__ import annotations

from llm_router_mw.scheduler import Terms
from tests.support.scheduling import World


def test_zero_releases_it_when_it_is_idle() -> None:
    world = World()
    request = world.serve("a", keep_alive_seconds=0)
    other = world.ask("a", keep_alive_seconds=0)
    assert world.release(request) == []
    assert world.release(other) == ["stop a"]


def test_it_stays_as_long_as_was_wished() -> None:
    world = World()
    world.idle("a", keep_alive_seconds=20)
    assert world.tick(19) == []
    assert world.tick(1) == ["stop a"]


def test_the_wish_goes_before_idle_limits() -> None:
    world = World()
    world.terms(a=Terms(sleep_idle_seconds=5, unload_idle_seconds=10))
    world.idle("a", keep_alive_seconds=20)
    assert world.tick(19) == []
    assert world.tick(1) == ["stop a"]


def test_minus_one_keeps_it() -> None:
    world = World()
    world.terms(a=Terms(sleep_idle_seconds=5))
    world.idle("a", keep_alive_seconds=-1)
    assert world.tick(1_000_000) == []


def test_the_last_request_decides() -> None:
    world = World()
    world.idle("a", keep_alive_seconds=-1)
    world.release(world.ask("a", keep_alive_seconds=3))
    assert world.tick(3) == ["stop a"]


def test_a_request_without_a_wish_goes_back_to_what_is_configured() -> None:
    world = World()
    world.terms(a=Terms(sleep_idle_seconds=5))
    world.idle("a", keep_alive_seconds=-1)
    world.release(world.ask("a"))
    assert world.tick(5) == ["sleep a full"]


def test_no_wish_is_longer_than_allowed() -> None:
    world = World(max_keep_alive_seconds=60)
    world.idle("a", keep_alive_seconds=1000)
    assert world.tick(60) == ["stop a"]


def test_it_is_no_shield_against_eviction() -> None:
    world = World()
    world.idle("a", keep_alive_seconds=-1)
    world.ask("b")
    assert world.did[-1] == "stop a"


def test_a_new_load_begins_without_wishes() -> None:
    world = World()
    world.idle("a", keep_alive_seconds=5)
    world.unload("a")
    world.exited("a")
    world.ask("a", hold=False)
    world.loaded("a")
    assert world.tick(1000) == []


class TestShared:
    def test_the_latest_of_the_models_counts(self) -> None:
        world = World()
        first = world.ask_shared(("m", "a"), keep_alive_seconds=10)
        second = world.ask_shared(("n", "a"), keep_alive_seconds=50)
        world.loaded("a")
        world.release(second)
        world.release(first)
        assert world.tick(10) == []
        assert world.tick(40) == ["stop a"]

    def test_one_that_keeps_it_keeps_it_for_all(self) -> None:
        world = World()
        first = world.ask_shared(("m", "a"), keep_alive_seconds=0)
        second = world.ask_shared(("n", "a"), keep_alive_seconds=-1)
        world.loaded("a")
        world.release(second)
        assert world.release(first) == []
        assert world.tick(1_000_000) == []

    def test_the_wish_of_a_model_ends_with_it(self) -> None:
        world = World()
        first = world.ask_shared(("m", "a"), keep_alive_seconds=10)
        second = world.ask_shared(("n", "a"), keep_alive_seconds=-1)
        world.loaded("a")
        world.release(second)
        world.release(first)
        world.unload("a", model="n")
        assert world.tick(10) == ["stop a"]
