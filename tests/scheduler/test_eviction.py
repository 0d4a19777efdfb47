"""Who has to go, as the policy says, and no more than needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llm_router_mw.faults import Faults
from llm_router_mw.protocols import Candidate, Shortfall
from llm_router_mw.scheduler import Terms
from llm_router_mw.scheduler.victims import Trusted
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, price


class Policy:
    """Ranks as a function says, and remembers what it was shown."""

    name = "test"

    def __init__(self, order: Callable[[Sequence[Candidate]], Any]) -> None:
        self._order = order
        self.seen: list[Candidate] = []
        self.shortfalls: list[Shortfall] = []

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        self.seen += candidates
        self.shortfalls.append(shortfall)
        ranked: Sequence[Candidate] = self._order(candidates)
        return ranked


def by_size(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda each: each.bytes_freed("gpu"))


def test_the_least_recently_used_idle_model_is_evicted_first() -> None:
    world = World(models_max=2)
    world.idle("a", "b")
    world.now += 1
    world.release(world.ask("a"))
    world.ask("c")
    assert world.did[-1] == "stop b"
    assert world.state("a") is InstanceState.LOADED


def test_waiters_for_one_model_cost_one_eviction() -> None:
    world = World(models_max=2)
    world.idle("a", "b")
    before = len(world.did)
    for _ in range(3):
        world.ask("c")
    assert world.did[before:] == ["stop a"]


def test_no_limit_evicts_nothing() -> None:
    world = World(models_max=0)
    world.idle(*"abcdefgh")
    assert not [done for done in world.did if done.startswith("stop")]


def test_victims_that_turn_out_not_to_be_needed_are_spared() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(small=20, large=70, new=90)
    world.idle("small", "large")
    world.sizes(new=75)
    before = len(world.did)
    world.ask("new")
    assert world.did[before:] == ["stop large"]


def test_what_frees_nothing_of_what_is_lacking_stays() -> None:
    world = World(models_max=0)
    world.memory(gpu0=100, gpu1=100)
    world.prices = {"a": (price(gpu0=90),), "b": (price(gpu1=90),), "c": (price(gpu1=50),)}
    world.idle("a", "b")
    world.ask("c")
    assert world.did[-1] == "stop b"


def test_where_idle_ones_are_not_enough_nobody_goes() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=40, b=40, c=70)
    world.serve("a")
    world.idle("b")
    before = len(world.did)
    world.ask("c")
    assert world.did[before:] == []


def test_an_instance_that_two_requests_want_takes_its_room_once() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=20, b=60, e=30, d=10)
    world.idle("a", "b")
    before = len(world.did)
    world.ask("e")
    world.ask("d", "e")
    assert world.did[before:] == ["stop a"]


class TestPolicies:
    def test_the_policy_chooses(self) -> None:
        def youngest(candidates: Sequence[Candidate]) -> list[Candidate]:
            return sorted(candidates, key=lambda each: -each.last_used_seconds)

        world = World(models_max=2, policy=Policy(youngest))
        world.idle("a", "b")
        world.ask("c")
        assert world.did[-1] == "stop b"

    def test_it_sees_what_each_would_free_and_what_is_lacking(self) -> None:
        policy = Policy(by_size)
        world = World(models_max=0, policy=policy)
        world.memory(gpu=100)
        world.sizes(a=60, b=30, c=50)
        world.idle("a", "b")
        world.ask("c")
        assert {each.instance.path: each.bytes_freed("gpu") for each in policy.seen} == {
            "a": 60,
            "b": 30,
        }
        (shortfall,) = policy.shortfalls
        assert (shortfall.device, shortfall.bytes) == ("gpu", 40)

    def test_it_is_not_asked_where_there_is_no_choice(self) -> None:
        policy = Policy(list)
        world = World(models_max=1, policy=policy)
        world.idle("a")
        world.ask("b")
        assert world.did[-1] == "stop a"
        assert not policy.seen

    def test_it_sees_how_each_was_used(self) -> None:
        policy = Policy(list)
        world = World(models_max=2, policy=policy)
        world.idle("a", "b")
        world.now += 5
        world.release(world.ask("a"))
        world.ask("c")
        (seen,) = (each for each in policy.seen if each.instance.path == "a")
        assert (seen.uses, seen.load_seconds, seen.last_used_seconds) == (2, 1.0, 7.0)
        assert (seen.loaded_at_seconds, seen.models, seen.step) == (1.0, ("a",), "stop")
        assert 1.9 < seen.heat < 2.0

    @pytest.mark.parametrize("answer", ["nothing", "made up", "twice", "raises"])
    def test_one_that_fails_is_replaced_by_lru(self, answer: str) -> None:
        def bad(candidates: Sequence[Candidate]) -> Any:
            match answer:
                case "raises":
                    raise ValueError("no")
                case "twice":
                    return [candidates[0], candidates[0]]
                case "made up":
                    return [None, "x"]
            return []

        world = World(models_max=2, policy=Policy(bad))
        world.idle("a", "b")
        world.ask("c")
        assert world.did[-1] == "stop a"

    def test_each_failure_is_counted_and_the_first_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(candidates: Sequence[Candidate]) -> Any:
            raise ValueError("no idea")

        faults = Faults()
        world = World(models_max=3, policy=Trusted(Policy(fail), faults))
        world.idle("a", "b", "c")
        for name in "de":
            world.ask(name)
        assert world.did[-2:] == ["stop a", "stop b"]
        assert faults.counts["eviction policy 'test'"] >= 2
        [message] = caplog.messages
        assert "no idea" in message

    def test_it_cannot_name_a_busy_instance(self) -> None:
        policy = Policy(list)
        world = World(models_max=3, policy=policy)
        world.serve("a")
        world.idle("b", "c")
        world.ask("d")
        assert {each.instance.path for each in policy.seen} == {"b", "c"}


class TestLadder:
    def world(self, evict_to: str) -> World:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.terms(a=Terms(evict_to=evict_to))  # type: ignore[arg-type]
        world.prices["a"] = (price(gpu=80, context={"gpu": 20}, weights={"gpu": 50}),)
        world.idle("a")
        return world

    def test_a_victim_goes_no_further_than_said(self) -> None:
        world = self.world("context")
        world.sizes(b=40)
        world.ask("b")
        assert world.did[-1] == "sleep a context"
        assert world.slept("a", gpu=60) == ["start b"]

    def test_if_that_does_not_free_enough_it_stops(self) -> None:
        world = self.world("context")
        world.sizes(b=50)
        world.ask("b")
        assert world.did[-1] == "stop a"

    def test_what_it_keeps_asleep_is_what_was_measured(self) -> None:
        world = self.world("full")
        world.sizes(b=80)
        world.ask("b")
        assert world.did[-1] == "sleep a full"
        assert world.slept("a", gpu=30) == ["stop a"]
        assert world.exited("a") == ["start b"]

    def test_sleepers_are_victims_too(self) -> None:
        world = self.world("full")
        world.sizes(b=80, c=95)
        world.ask("b")
        world.slept("a", gpu=10)
        world.loaded("b")
        for request in list(world.granted):
            world.release(request)
        world.ask("c")
        assert set(world.did[-2:]) == {"stop a", "stop b"}
