"""What the scheduler promises, one promise a test. Time and workers are the test's to move."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llm_router_mw.protocols import Candidate
from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, key


def test_a_request_for_a_cold_model_starts_it_and_is_granted_when_it_is_ready() -> None:
    world = World()
    request = world.ask("a")
    assert world.did == ["start a"]
    assert world.loaded("a") == [f"grant {request}"]
    assert world.state("a") is InstanceState.LOADED


def test_many_requests_for_a_cold_model_cause_one_load() -> None:
    world = World()
    requests = [world.ask("a") for _ in range(5)]
    assert world.did == ["start a"]
    assert world.loaded("a") == [f"grant {request}" for request in requests]


def test_a_loaded_model_is_shared_at_once() -> None:
    world = World()
    world.serve("a")
    request = world.ask("a")
    assert world.did[-1] == f"grant {request}"


def test_the_least_recently_used_idle_model_is_evicted_first() -> None:
    world = World(models_max=2)
    world.idle("a")
    world.idle("b")
    world.now += 1
    world.release(world.ask("a"))
    world.ask("c")
    assert world.did[-1] == "stop b"
    assert world.state("a") is InstanceState.LOADED


def test_a_victim_keeps_its_slot_until_its_worker_has_exited() -> None:
    world = World()
    world.idle("a")
    request = world.ask("b")
    assert world.did[-1] == "stop a"
    assert "start b" not in world.did
    assert world.exited("a") == ["start b"]
    assert world.loaded("b") == [f"grant {request}"]


def test_waiters_for_one_model_cost_one_eviction() -> None:
    world = World(models_max=2)
    world.idle("a")
    world.idle("b")
    before = len(world.did)
    for _ in range(3):
        world.ask("c")
    assert world.did[before:] == ["stop a"]


def test_a_busy_model_is_never_evicted() -> None:
    world = World()
    busy = world.serve("a")
    world.ask("b")
    assert world.did[-1] == f"grant {busy}"
    assert world.release(busy) == ["stop a"]


def test_two_cold_models_load_side_by_side() -> None:
    world = World(models_max=2)
    world.ask("a")
    world.ask("b")
    assert world.did == ["start a", "start b"]


def test_no_limit_evicts_nothing() -> None:
    world = World(models_max=0)
    for name in "abcdefgh":
        world.idle(name)
    assert not [done for done in world.did if done.startswith("stop")]


def test_a_blocked_request_does_not_block_an_unrelated_one() -> None:
    world = World(models_max=2)
    world.serve("a")
    world.serve("b")
    world.ask("c")
    request = world.ask("b")
    assert world.did[-1] == f"grant {request}"


def test_an_older_request_gets_the_free_slot_first() -> None:
    world = World()
    busy = world.serve("a")
    first = world.ask("b")
    world.ask("c")
    world.release(busy)
    assert world.exited("a") == ["start b"]
    assert world.loaded("b") == [f"grant {first}"]


def test_a_load_that_nobody_waits_for_is_aborted() -> None:
    world = World()
    first, second = world.ask("a"), world.ask("a")
    assert world.cancel(first) == []
    assert world.cancel(second) == ["stop a"]
    assert world.exited("a") == []
    assert world.state("a") is InstanceState.UNLOADED


def test_news_of_an_aborted_load_is_ignored() -> None:
    world = World()
    world.cancel(world.ask("a"))
    assert world.loaded("a") == []
    assert world.load_failed("a") == []
    assert world.state("a") is InstanceState.STOPPING


def test_a_model_wanted_again_while_it_stops_is_started_again() -> None:
    world = World()
    world.cancel(world.ask("a"))
    request = world.ask("a")
    assert world.did[-1] == "stop a"
    assert world.exited("a") == ["start a"]
    assert world.loaded("a") == [f"grant {request}"]


def test_news_of_an_earlier_generation_is_ignored() -> None:
    world = World()
    world.cancel(world.ask("a"))
    old = world.generation("a")
    world.exited("a")
    world.ask("a")
    assert world.generation("a") == old + 1
    assert world.send(events.Loaded(instance=key("a"), generation=old)) == []
    assert world.send(events.WorkerExited(instance=key("a"), generation=old, reason="")) == []
    assert world.state("a") is InstanceState.LOADING


def test_a_cancelled_request_that_was_never_queued_is_nothing() -> None:
    assert World().cancel(99) == []


class TestSeveralAtOnce:
    def test_they_are_granted_together(self) -> None:
        world = World(models_max=2)
        request = world.ask("a", "b")
        assert world.did == ["start a", "start b"]
        assert world.loaded("a") == []
        assert world.loaded("b") == [f"grant {request}"]
        assert len(world.granted[request]) == 2

    def test_what_is_ready_is_kept_for_the_rest(self) -> None:
        world = World(models_max=2)
        busy = world.serve("x")
        world.ask("a", "b")
        world.loaded("a")
        world.ask("c")
        assert world.state("a") is InstanceState.LOADED
        assert world.release(busy) == ["stop x"]
        assert world.exited("x") == ["start b"]

    def test_two_such_requests_do_not_deadlock(self) -> None:
        world = World(models_max=2)
        world.idle("a")
        world.idle("c")
        first = world.ask("a", "b")
        second = world.ask("c", "d")
        world.exited("c")
        world.loaded("b")
        assert first in world.granted
        world.release(first)
        for name in "ab":
            world.exited(name)
        for name in "cd":
            world.loaded(name)
        assert second in world.granted

    def test_more_than_can_ever_be_held_are_refused(self) -> None:
        world = World(models_max=1)
        request = world.ask("a", "b")
        assert world.rejected[request].kind == "InvalidRequestError"
        assert "models_max is 1" in world.rejected[request].message


class TestAutoloadOff:
    def test_an_unloaded_model_is_refused(self) -> None:
        world = World()
        request = world.ask("a", autoload=False)
        assert world.rejected[request].kind == "ModelNotLoadedError"

    def test_a_model_on_its_way_out_is_refused(self) -> None:
        world = World()
        world.serve("a")
        world.unload("a")
        request = world.ask("a", autoload=False)
        assert world.rejected[request].kind == "ModelNotLoadedError"

    def test_a_loading_model_is_waited_for(self) -> None:
        world = World()
        world.ask("a")
        request = world.ask("a", autoload=False)
        world.loaded("a")
        assert request in world.granted


class TestPatience:
    def test_after_max_wait_a_busy_model_drains_and_takes_no_more(self) -> None:
        world = World(max_wait=30)
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

    def test_before_that_the_resident_model_is_served(self) -> None:
        world = World(max_wait=30)
        world.serve("a")
        world.ask("b")
        world.tick(29)
        assert world.ask("a") in world.granted

    def test_the_least_recently_used_busy_model_drains(self) -> None:
        world = World(models_max=2, max_wait=30)
        world.serve("a")
        world.now += 1
        world.serve("b")
        world.ask("c")
        world.tick(31)
        assert world.state("a") is InstanceState.DRAINING
        assert world.state("b") is InstanceState.LOADED

    def test_a_draining_model_is_spared_when_the_request_leaves(self) -> None:
        world = World(max_wait=30)
        busy = world.serve("a")
        waiting = world.ask("b")
        world.tick(30)
        late = world.ask("a")
        assert world.cancel(waiting) == [f"grant {late}"]
        assert world.state("a") is InstanceState.LOADED
        assert world.release(busy) == []

    def test_a_draining_model_is_spared_when_room_came_from_elsewhere(self) -> None:
        world = World(models_max=2, max_wait=30)
        world.serve("a")
        world.now += 1
        world.serve("b")
        world.ask("c")
        world.tick(31)
        assert world.state("a") is InstanceState.DRAINING
        world.exited("b")  # it crashed
        assert world.did[-1] == "start c"
        assert world.state("a") is InstanceState.LOADED

    def test_a_request_does_not_wait_for_ever(self) -> None:
        world = World(queue_timeout=60, max_wait=1000)
        world.serve("a")
        request = world.ask("b")
        assert world.timer == 60
        assert world.tick(60) == [f"reject {request}: QueueTimeoutError"]

    def test_a_load_of_its_own_may_take_longer(self) -> None:
        world = World(queue_timeout=60)
        request = world.ask("a")
        assert world.tick(100) == []
        assert world.timer is None
        assert world.loaded("a") == [f"grant {request}"]

    def test_a_lease_does_not_last_for_ever(self) -> None:
        world = World(max_lease=100)
        (lease,) = world.granted[world.serve("a")]
        assert world.timer == 100
        world.tick(100)
        assert world.revoked[lease].kind == "LeaseExpiredError"
        assert world.timer is None

    def test_an_idle_scheduler_sets_no_timer(self) -> None:
        world = World()
        world.release(world.serve("a"))
        assert world.timer is None


class TestFullQueue:
    def test_one_too_many_is_refused(self) -> None:
        world = World(max_queue=2)
        world.serve("a")
        waiting = [world.ask("b"), world.ask("c")]
        refused = world.ask("b")
        assert world.rejected[refused].kind == "QueueFullError"
        assert world.rejected[refused].fields["retry_after_seconds"] > 0
        assert not set(waiting) & set(world.rejected)

    def test_what_is_loaded_is_served_all_the_same(self) -> None:
        world = World(max_queue=1)
        world.serve("a")
        world.ask("b")
        assert world.ask("a") in world.granted

    def test_who_leaves_makes_room(self) -> None:
        world = World(max_queue=1)
        world.serve("a")
        world.cancel(world.ask("b"))
        assert world.ask("b") not in world.rejected


class TestFailedLoads:
    def test_all_waiters_hear_of_it_and_the_slot_is_free_after_the_exit(self) -> None:
        world = World()
        first, second = world.ask("a"), world.ask("a")
        waiting = world.ask("b")
        assert world.load_failed("a") == [
            f"reject {first}: ModelLoadError",
            f"reject {second}: ModelLoadError",
        ]
        assert world.exited("a") == ["start b"]
        assert world.state("a") is InstanceState.FAILED
        assert world.loaded("b") == [f"grant {waiting}"]

    def test_the_model_cools_down_longer_each_time(self) -> None:
        world = World()
        pauses = []
        for _ in range(7):
            world.ask("a")
            world.load_failed("a")
            world.exited("a")
            refused = world.rejected[world.ask("a")]
            assert refused.kind == "ModelCoolingDownError"
            pauses.append(refused.fields["retry_after_seconds"])
            world.now += pauses[-1]
        assert pauses == [10, 20, 40, 80, 160, 300, 300]

    def test_success_ends_the_counting(self) -> None:
        world = World()
        world.ask("a")
        world.load_failed("a")
        world.exited("a")
        world.now += 10
        world.release(world.serve("a"))
        instance = world.scheduler.instance(key("a"))
        assert instance is not None
        assert instance.failures == 0

    def test_a_load_by_hand_is_tried_at_once(self) -> None:
        world = World()
        world.ask("a")
        world.load_failed("a")
        world.exited("a")
        world.ask("a", hold=False)
        assert world.did[-1] == "start a"

    def test_unloading_by_hand_clears_the_failure(self) -> None:
        world = World()
        world.ask("a")
        world.load_failed("a")
        world.exited("a")
        world.unload("a")
        assert world.state("a") is InstanceState.UNLOADED
        world.ask("a")
        assert world.did[-1] == "start a"

    def test_a_worker_that_dies_while_it_loads_has_failed(self) -> None:
        world = World()
        request = world.ask("a")
        world.exited("a")
        assert world.rejected[request].kind == "ModelLoadError"
        assert "exited with code 0" in world.rejected[request].message
        assert world.state("a") is InstanceState.FAILED


class TestCrashes:
    def test_leases_end_and_the_next_request_reloads(self) -> None:
        world = World()
        request = world.serve("a")
        world.exited("a")
        (lease,) = world.granted[request]
        assert world.revoked[lease].kind == "WorkerDiedError"
        assert world.state("a") is InstanceState.UNLOADED
        world.ask("a")
        assert world.did[-1] == "start a"

    def test_the_end_of_a_draining_worker_stops_nothing_twice(self) -> None:
        world = World(max_wait=30)
        world.serve("a")
        world.ask("b")
        world.tick(30)
        assert world.exited("a") == ["start b"]

    def test_a_lease_released_late_is_nothing(self) -> None:
        world = World()
        request = world.serve("a")
        world.exited("a")
        assert world.release(request) == []


class TestUnload:
    def test_an_idle_model_stops(self) -> None:
        world = World()
        world.idle("a")
        assert world.unload("a") == ["stop a"]

    def test_a_busy_model_drains_first(self) -> None:
        world = World()
        request = world.serve("a")
        assert world.unload("a") == []
        assert world.state("a") is InstanceState.DRAINING
        assert world.release(request) == ["stop a"]

    def test_force_cuts_it_off(self) -> None:
        world = World()
        (lease,) = world.granted[world.serve("a")]
        assert world.unload("a", force=True) == ["stop a", "kill a"]
        assert world.revoked[lease].kind == "ModelUnloadedError"

    def test_a_load_under_way_is_taken_back(self) -> None:
        world = World()
        request = world.ask("a")
        assert world.unload("a") == ["stop a", f"reject {request}: ModelUnloadedError"]

    def test_an_unloaded_model_stays_so(self) -> None:
        assert World().unload("a") == []

    def test_a_shared_instance_ends_with_its_last_model(self) -> None:
        world = World()
        world.ask("a")
        world.send(events.Request(id=50, instances=(key("a"),), models=("other",)))
        world.loaded("a")
        for request in list(world.granted):
            world.release(request)
        assert world.unload("a", model="other") == []
        assert world.unload("a") == ["stop a"]

    def test_a_name_that_only_waits_counts_as_long_as_it_waits(self) -> None:
        world = World()
        world.ask("a")
        world.send(events.Request(id=50, instances=(key("a"),), models=("other",)))
        world.cancel(50)
        assert world.unload("a")[0] == "stop a"

    def test_a_name_that_is_granted_a_lease_is_attached_again(self) -> None:
        world = World(models_max=2)
        world.ask("a")
        world.send(events.Request(id=50, instances=(key("a"), key("b")), models=("other", "b")))
        world.loaded("a")
        world.unload("a", model="other")
        world.loaded("b")
        instance = world.scheduler.instance(key("a"))
        assert instance is not None
        assert instance.models == {"a", "other"}


class TestShutdown:
    def test_everybody_hears_of_it_and_every_worker_stops(self) -> None:
        world = World(models_max=2)
        (lease,) = world.granted[world.serve("a")]
        world.ask("b")
        waiting = world.ask("c")
        done = world.send(events.Shutdown())
        assert f"reject {waiting}: RouterNotRunningError" in done
        assert {"stop a", "stop b"} <= set(done)
        assert world.revoked[lease].kind == "RouterNotRunningError"

    def test_nothing_is_granted_or_started_afterwards(self) -> None:
        world = World()
        world.idle("a")
        world.send(events.Shutdown())
        request = world.ask("a")
        assert world.rejected[request].kind == "RouterNotRunningError"
        assert world.exited("a") == []


class TestPreload:
    def test_it_loads_without_a_lease(self) -> None:
        world = World()
        request = world.ask("a", hold=False)
        assert world.loaded("a") == [f"grant {request}"]
        assert world.granted[request] == ()

    def test_it_is_evictable_like_any_other(self) -> None:
        world = World()
        world.ask("a", hold=False)
        world.loaded("a")
        world.ask("b")
        assert world.did[-1] == "stop a"


class TestPolicies:
    def test_the_policy_chooses(self) -> None:
        class Youngest:
            name = "youngest"

            def rank(
                self, candidates: Sequence[Candidate], shortfall: int, now: float
            ) -> Sequence[Candidate]:
                return sorted(candidates, key=lambda c: -c.last_used_seconds)

        world = World(models_max=2, policy=Youngest())
        world.idle("a")
        world.idle("b")
        world.ask("c")
        assert world.did[-1] == "stop b"

    @pytest.mark.parametrize("answer", ["nothing", "made up", "raises"])
    def test_a_policy_that_fails_is_replaced_by_lru(self, answer: str) -> None:
        class Bad:
            name = "bad"

            def rank(
                self, candidates: Sequence[Candidate], shortfall: int, now: float
            ) -> Sequence[Candidate]:
                if answer == "raises":
                    raise ValueError("no")
                return [] if answer == "nothing" else [None, "x"]  # type: ignore[list-item]

        world = World(models_max=2, policy=Bad())
        world.idle("a")
        world.idle("b")
        world.ask("c")
        assert world.did[-1] == "stop a"

    def test_a_policy_cannot_name_a_busy_instance(self) -> None:
        class Greedy:
            name = "greedy"
            seen: list[str] = []

            def rank(
                self, candidates: Sequence[Candidate], shortfall: int, now: float
            ) -> Sequence[Candidate]:
                self.seen += [candidate.instance.path for candidate in candidates]
                return candidates

        policy = Greedy()
        world = World(models_max=2, policy=policy)
        world.serve("a")
        world.idle("b")
        world.ask("c")
        assert policy.seen == ["b"]


def test_monitoring_sees_the_queue() -> None:
    world = World()
    world.serve("a")
    world.ask("b")
    world.ask("b")
    assert world.scheduler.waiting(key("b")) == 2
    assert world.scheduler.waiting(key("a")) == 0
    assert [instance.key.path for instance in world.scheduler.instances()] == ["a", "b"]
