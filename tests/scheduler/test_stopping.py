"""How instances go: by hand, with everything at the end, and what is told of a worker late."""

from __future__ import annotations

from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceState
from tests.support.scheduling import World, key


def test_a_victim_keeps_its_slot_until_its_worker_has_exited() -> None:
    world = World()
    world.idle("a")
    request = world.ask("b")
    assert world.did[-1] == "stop a"
    assert "start b" not in world.did
    assert world.exited("a") == ["start b"]
    assert world.loaded("b") == [f"grant {request}"]


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


def test_a_start_that_was_held_back_goes_on_waiting() -> None:
    world = World()
    world.sizes(a=50)
    world.memory(gpu=100)
    request = world.ask("a")
    world.memory(gpu=100, others=80)
    assert world.deferred("a") == []
    assert world.state("a") is InstanceState.UNLOADED
    world.memory(gpu=100)
    assert world.tick(1.0) == ["start a"]
    assert world.loaded("a") == [f"grant {request}"]


class TestHeldBack:
    """A load that another router on the machine keeps from its room, which nobody can see yet."""

    def world(self) -> World:
        world = World(models_max=0)
        world.memory(gpu=100)
        world.sizes(a=50, b=60)
        return world

    def test_it_is_tried_again_after_a_moment_only(self) -> None:
        world = self.world()
        world.ask("a")
        assert world.deferred("a") == []
        assert world.timer is not None
        world.now = world.timer
        assert world.tick() == ["start a"]

    def test_it_is_no_failure(self) -> None:
        world = self.world()
        world.ask("a")
        world.deferred("a")
        assert world.instance("a").failures == 0
        assert world.instance("a").failure is None

    def test_its_place_is_kept_meanwhile(self) -> None:
        world = self.world()
        world.ask("a")
        world.deferred("a")
        world.ask("b")
        assert "start b" not in world.did
        assert world.tick(1.0) == ["start a"]

    def test_who_has_room_beside_it_goes_on(self) -> None:
        world = self.world()
        world.sizes(b=50)
        world.ask("a")
        world.deferred("a")
        world.ask("b")
        assert world.did[-1] == "start b"

    def test_once_nobody_wants_it_its_place_is_free(self) -> None:
        world = self.world()
        request = world.ask("a")
        world.deferred("a")
        world.ask("b")
        assert world.cancel(request) == ["start b"]

    def test_its_request_times_out_as_any_other(self) -> None:
        world = World(models_max=0, queue_timeout_seconds=10.0)
        world.memory(gpu=100)
        world.sizes(a=50)
        request = world.ask("a")
        world.tick(10.0)
        assert request not in world.rejected
        world.deferred("a")
        assert world.rejected[request].kind == "QueueTimeoutError"


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

    def test_a_sleeping_model_stops(self) -> None:
        world = World()
        world.asleep("a")
        assert world.unload("a") == ["stop a"]

    def test_an_unloaded_model_stays_so(self) -> None:
        assert World().unload("a") == []


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
        assert world.predict("a") == []

    def test_what_is_spared_by_it_is_not_granted(self) -> None:
        world = World(max_wait_seconds=30)
        world.serve("a")
        world.ask("b")
        world.tick(30)
        late = world.ask("a")
        world.send(events.Shutdown())
        assert late not in world.granted
        assert world.rejected[late].kind == "RouterNotRunningError"

    def test_sleepers_end_too(self) -> None:
        world = World()
        world.asleep("a")
        assert world.send(events.Shutdown()) == ["stop a"]
