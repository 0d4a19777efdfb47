"""What is pinned never has to go for another, and who waits for it is told in the end."""

from __future__ import annotations

from typing import Any

from llm_router_mw.scheduler import Terms
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, reading

PINNED = Terms(pinned=True)


def pinned_world(**limits: Any) -> World:
    world = World(**limits)
    world.terms(a=PINNED)
    world.idle("a")
    return world


def test_it_is_no_victim() -> None:
    world = pinned_world(models_max=2)
    world.idle("b")
    world.ask("c")
    assert world.did[-1] == "stop b"


def test_it_does_not_drain_for_anybody() -> None:
    world = pinned_world(max_wait_seconds=30)
    world.ask("a")
    world.ask("b")
    world.tick(31)
    assert world.state("a") is InstanceState.LOADED


def test_where_all_are_pinned_a_request_is_refused_after_its_time() -> None:
    world = pinned_world(queue_timeout_seconds=60)
    request = world.ask("b")
    world.tick(59)
    assert request not in world.rejected
    world.tick(1)
    assert world.rejected[request].kind == "QueueTimeoutError"
    assert world.rejected[request].fields["retry_after_seconds"] > 0


def test_memory_taken_by_others_does_not_unload_it() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.terms(a=PINNED)
    world.sizes(a=60, b=30)
    world.idle("a", "b")
    assert world.observe({"gpu": reading(100, others=70)}) == ["stop b"]


def test_idle_limits_hold_for_it_all_the_same() -> None:
    world = World()
    world.terms(a=Terms(pinned=True, sleep_idle_seconds=5))
    world.idle("a")
    assert world.tick(5) == ["sleep a full"]


def test_it_can_be_unloaded_by_hand() -> None:
    world = pinned_world()
    assert world.unload("a") == ["stop a"]


def test_it_may_be_unpinned() -> None:
    world = pinned_world()
    world.ask("b")
    assert world.state("a") is InstanceState.LOADED
    assert world.terms(a=Terms()) == ["stop a"]
