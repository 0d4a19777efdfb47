"""Every change is told with its reason in words, and with the arithmetic of memory."""

from __future__ import annotations

from llm_router_mw.types import InstanceState
from tests.support.scheduling import World


def test_an_eviction_says_for_whom_and_why() -> None:
    world = World()
    world.idle("a")
    world.now += 5
    world.ask("b")
    (reason,) = world.reasons("a", "evicted")
    assert "'b'" in reason
    assert "5.0 s" in reason
    assert "lru" in reason


def test_a_drain_says_for_whom() -> None:
    world = World(max_wait_seconds=30)
    world.serve("a")
    world.ask("b")
    world.tick(30)
    assert "'b'" in world.reasons("a")[-1]


def test_a_request_that_waits_is_announced() -> None:
    world = World()
    world.serve("a")
    world.ask("b")
    assert world.reasons("b", "queued")


def test_so_is_one_that_has_waited_long_enough_and_one_that_leaves() -> None:
    world = World(max_wait_seconds=30)
    world.serve("a")
    request = world.ask("b")
    world.tick(30)
    world.cancel(request)
    assert world.reasons("b", "queued") == [
        "a request waits for it",
        "a request has waited for 30.0 s, and goes first",
        "a request no longer waits for it",
    ]


def test_a_refusal_is_announced_with_its_reason() -> None:
    world = World(max_queue=1)
    world.serve("a")
    world.ask("b")
    world.ask("c")
    (reason,) = world.reasons("c", "refused")
    assert "max_queue" in reason


def test_a_load_says_what_it_needs_and_what_is_left_by_pool() -> None:
    world = World(models_max=0)
    world.memory(gpu=100, margin=5, others=10)
    world.sizes(a=60)
    world.ask("a")
    (loading,) = [each for each in world.announced if each.state is InstanceState.LOADING]
    assert loading.data["memory"] == {
        "gpu": {"needed_bytes": 60, "left_bytes": 25, "others_bytes": 10, "margin_bytes": 5}
    }


def test_an_eviction_says_what_it_frees_and_for_whom() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=60, b=50)
    world.idle("a")
    world.ask("b")
    (evicted,) = [each for each in world.announced if each.kind == "evicted"]
    assert evicted.data == {"freed": {"gpu": 60}, "for": ["b"]}


def test_a_load_of_unknown_size_says_nothing_of_memory() -> None:
    world = World()
    world.ask("a")
    assert world.announced[-1].data == {}


def test_a_failed_load_is_told_with_its_failure() -> None:
    world = World()
    world.ask("a")
    world.load_failed("a", "the file is broken")
    assert world.reasons("a", "load_failed") == ["the file is broken"]


def test_a_death_is_told_with_its_reason() -> None:
    world = World()
    world.serve("a")
    world.exited("a")
    assert world.reasons("a", "worker_died") == ["exited with code 0"]


def test_an_expected_exit_is_no_death() -> None:
    world = World()
    world.idle("a")
    world.unload("a")
    world.exited("a")
    assert world.reasons("a", "worker_died") == []
    assert world.announced[-1].state is InstanceState.UNLOADED


def test_each_state_is_told_once() -> None:
    world = World()
    world.idle("a")
    world.unload("a")
    world.exited("a")
    told = [each.state for each in world.announced if each.kind == "status"]
    assert told == [
        InstanceState.LOADING,
        InstanceState.LOADED,
        InstanceState.STOPPING,
        InstanceState.UNLOADED,
    ]


def test_sleep_and_wake_say_what_was_freed_and_what_is_taken() -> None:
    mib = 1024**2
    world = World()
    world.memory(gpu=4000 * mib)
    world.sizes(a=900 * mib)
    world.idle("a")
    world.put_to_sleep("a")
    world.slept("a", gpu=30 * mib)
    assert world.reasons("a")[-1].endswith(", freed 870 MiB of gpu, keeps 30 MiB of gpu")
    world.ask("a")
    world.woke("a", gpu=850 * mib)
    assert world.reasons("a")[-1].endswith(", takes 850 MiB of gpu")
