"""What is loaded fits: in every pool, with a slot and a worker, at every admission."""

from __future__ import annotations

import pytest

from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceState, PoolReading
from tests.support.scheduling import World, price, reading


def roomy(**totals: int) -> World:
    """Return a world without limits but those of memory."""
    world = World(models_max=0)
    world.memory(**totals or {"gpu": 100})
    return world


def test_what_fits_beside_the_rest_evicts_nobody() -> None:
    world = roomy()
    world.sizes(a=60, b=40)
    world.idle("a", "b")
    assert not [done for done in world.did if done.startswith("stop")]


def test_what_does_not_fit_waits_until_the_victim_has_gone() -> None:
    world = roomy()
    world.sizes(a=60, b=50)
    world.idle("a")
    world.ask("b")
    assert world.did[-1] == "stop a"
    assert world.exited("a") == ["start b"]


def test_a_load_is_charged_from_its_first_step() -> None:
    world = roomy()
    world.sizes(a=60, b=60)
    world.ask("a")
    world.ask("b")
    assert world.did == ["start a"]


def test_a_price_is_asked_for_once() -> None:
    world = roomy()
    world.keep_prices_waiting = True
    world.ask("a")
    world.ask("a")
    world.ask("b")
    assert world.asked_prices == ["a", "b"]


def test_a_known_price_is_not_asked_for_again() -> None:
    world = roomy()
    world.sizes(a=60)
    world.idle("a")
    world.unload("a")
    world.exited("a")
    world.keep_prices_waiting = True
    world.ask("a")
    assert world.asked_prices == []
    assert world.did[-1] == "start a"


def test_a_new_price_replaces_the_old_one() -> None:
    world = roomy()
    world.sizes(a=60)
    world.idle("a")
    world.unload("a")
    world.exited("a")
    world.priced("a", (price(gpu=30),))
    world.ask("a")
    assert world.scheduler.ledger.charged("gpu") == 30


def test_what_was_measured_replaces_the_price() -> None:
    world = roomy()
    world.sizes(a=60, b=45)
    world.ask("a")
    world.loaded("a", gpu=50)
    assert world.scheduler.ledger.charged("gpu") == 50
    world.ask("b")
    assert world.did[-1] == "start b"


def test_what_is_seen_counts_where_it_is_more() -> None:
    world = roomy()
    world.sizes(a=60)
    world.idle("a")
    world.observe({"gpu": reading(100)}, {"a": {"gpu": 70}})
    assert world.scheduler.ledger.charged("gpu") == 70
    world.observe({"gpu": reading(100)}, {"a": {"gpu": 10}})
    assert world.scheduler.ledger.charged("gpu") >= 60


def test_a_margin_stays_free() -> None:
    world = World(models_max=0)
    world.memory(gpu=100, margin=10)
    world.sizes(a=60, b=35)
    world.idle("a")
    world.ask("b")
    assert world.did[-1] == "stop a"


def test_what_others_hold_is_not_ours() -> None:
    world = roomy()
    world.sizes(a=60, b=35)
    world.idle("a")
    world.memory(gpu=100, others=10)
    world.ask("b")
    assert world.did[-1] == "stop a"


def test_a_model_of_unknown_size_needs_a_slot_only() -> None:
    world = roomy()
    world.sizes(a=100)
    world.idle("a")
    world.ask("unknown")
    assert world.did[-1] == "start unknown"
    assert world.started["unknown"] is None


def test_a_pool_of_which_nothing_is_known_limits_nothing() -> None:
    world = World(models_max=0)
    world.observe({"gpu": reading(0)})
    world.sizes(a=60, b=60)
    world.ask("a")
    world.ask("b")
    assert world.did == ["start a", "start b"]


class TestWorkers:
    def test_sleepers_take_no_slot(self) -> None:
        world = World(models_max=1)
        world.asleep("a")
        world.ask("b")
        assert world.did[-1] == "start b"

    def test_but_they_count_as_workers(self) -> None:
        world = World(models_max=2, workers_max=1)
        world.asleep("a")
        world.ask("b")
        assert world.did[-1] == "stop a"
        assert world.exited("a") == ["start b"]

    def test_one_that_falls_asleep_keeps_its_slot_until_it_sleeps(self) -> None:
        world = World(models_max=1)
        world.idle("a")
        world.put_to_sleep("a")
        world.ask("b")
        assert world.did[-1] == "sleep a full"
        assert world.slept("a") == ["start b"]


class TestNeverFits:
    def test_it_is_refused_with_what_it_needs_and_what_there_is(self) -> None:
        world = roomy()
        world.sizes(a=150)
        request = world.ask("a")
        assert world.rejected[request].kind == "ModelTooLargeError"
        assert world.rejected[request].fields["devices"] == {
            "gpu": {"needed_bytes": 150, "available_bytes": 100}
        }

    def test_it_is_refused_at_once_when_its_price_is_known(self) -> None:
        world = roomy()
        world.sizes(a=150)
        world.ask("a")
        world.keep_prices_waiting = True
        assert world.ask("a") in world.rejected
        assert world.asked_prices == []

    def test_it_evicts_nobody(self) -> None:
        world = roomy()
        world.sizes(a=60, b=150)
        world.idle("a")
        world.ask("b")
        assert world.state("a") is InstanceState.LOADED

    def test_all_who_wait_for_it_are_refused(self) -> None:
        world = roomy()
        world.keep_prices_waiting = True
        requests = [world.ask("a"), world.ask("a")]
        world.priced("a", (price(gpu=150),))
        assert set(requests) == set(world.rejected)

    def test_it_is_the_nearest_of_its_placements_that_is_told(self) -> None:
        world = roomy(gpu=100, host=200)
        world.prices["a"] = (price(gpu=300), price(host=220))
        request = world.ask("a")
        assert set(world.rejected[request].fields["devices"]) == {"host"}

    def test_what_other_programs_hold_is_worth_waiting_for(self) -> None:
        world = roomy()
        world.sizes(a=60, b=80)
        world.idle("a")
        world.memory(gpu=100, others=30)
        request = world.ask("b")
        assert request not in world.rejected
        assert world.state("a") is InstanceState.LOADED
        world.memory(gpu=100)
        assert world.did[-1] == "stop a"

    def test_one_that_waits_in_vain_is_told_what_others_leave(self) -> None:
        world = World(models_max=0, queue_timeout_seconds=60.0)
        world.memory(gpu=100, others=30)
        world.sizes(a=80)
        request = world.ask("a")
        world.tick(60.0)
        refusal = world.rejected[request]
        assert refusal.kind == "QueueTimeoutError"
        assert "that other programs and the margin leave" in refusal.message
        assert refusal.fields["devices"] == {"gpu": {"needed_bytes": 80, "available_bytes": 70}}

    def test_the_margin_and_a_limit_cannot_change(self) -> None:
        world = World(models_max=0)
        limited = PoolReading(total_bytes=100, free_bytes=100, margin_bytes=10, limit_bytes=50)
        world.observe({"gpu": reading(100, margin=10), "host": limited})
        world.prices["a"] = (price(gpu=95),)
        world.prices["b"] = (price(host=60),)
        kinds = [world.rejected[world.ask(name)].kind for name in ("a", "b")]
        assert kinds == ["ModelTooLargeError"] * 2

    def test_one_placement_that_fits_is_enough(self) -> None:
        world = roomy(gpu=100, host=200)
        world.prices["a"] = (price(gpu=300), price(host=180))
        world.ask("a")
        assert world.did == ["start a"]


class TestTakenByOthers:
    def test_idle_instances_go(self) -> None:
        world = roomy()
        world.sizes(a=30, b=30, c=30)
        world.idle("a", "b", "c")
        assert world.memory(gpu=100, others=20) == ["stop a"]

    def test_no_more_than_needed(self) -> None:
        world = roomy()
        world.sizes(a=60, b=30)
        world.idle("a", "b")
        assert world.memory(gpu=100, others=30) == ["stop a"]
        assert world.memory(gpu=100, others=40) == []

    def test_busy_ones_stay(self) -> None:
        world = roomy()
        world.sizes(a=60)
        request = world.serve("a")
        assert world.memory(gpu=100, others=90) == []
        assert world.release(request) == ["stop a"]

    @pytest.mark.parametrize("others", [0, 5, 10])
    def test_as_long_as_there_is_room_nobody_goes(self, others: int) -> None:
        world = roomy()
        world.sizes(a=90)
        world.idle("a")
        assert world.memory(gpu=100, others=others) == []

    def test_a_pool_that_nobody_uses_costs_nobody_anything(self) -> None:
        world = roomy(gpu=100, host=100)
        world.sizes(a=90)
        world.idle("a")
        assert world.observe({"host": reading(100, others=100)}) == []


class TestWithoutAnEstimate:
    """Limits do not apply to a model of which nobody could tell what it needs."""

    def unknown(self, world: World, **measured: int) -> None:
        """Load the model ``x``, and leave it idle."""
        request = world.ask("x")
        world.loaded("x", **measured)
        world.release(request)

    def test_it_stays_though_it_is_larger_than_what_there_is(self) -> None:
        world = roomy()
        self.unknown(world, gpu=150)
        world.memory(gpu=100)
        assert world.state("x") is InstanceState.LOADED

    def test_it_goes_if_somebody_needs_its_room(self) -> None:
        world = roomy()
        world.sizes(a=20)
        self.unknown(world, gpu=150)
        world.ask("a")
        assert world.did[-1] == "stop x"
        assert world.exited("x") == ["start a"]

    def test_it_goes_if_the_margin_is_not_free(self) -> None:
        world = roomy()
        self.unknown(world, gpu=150)
        full = PoolReading(total_bytes=100, free_bytes=5, ours_bytes=95, margin_bytes=10)
        assert world.observe({"gpu": full}) == ["stop x"]

    def test_others_make_way_for_other_programs_as_they_would_without_it(self) -> None:
        world = roomy()
        world.sizes(a=60)
        world.idle("a")
        self.unknown(world, gpu=30)
        some = PoolReading(total_bytes=100, free_bytes=10, ours_bytes=50, margin_bytes=0)
        # 60 are left for us: enough for the one that was promised as much.
        assert world.observe({"gpu": some}) == []
        more = PoolReading(total_bytes=100, free_bytes=10, ours_bytes=40, margin_bytes=0)
        assert world.observe({"gpu": more}) == ["stop a"]


class TestHoldings:
    """Memory of ours that is no instance's."""

    def hold(self, world: World, size: int, *, sheddable: bool = False) -> list[str]:
        held = {"gpu": size} if size else {}
        return world.send(events.Held(holder="cache", bytes_by_pool=held, sheddable=sheddable))

    def test_what_is_held_is_not_there_for_models(self) -> None:
        world = roomy()
        world.sizes(a=60, b=30)
        world.idle("a")
        self.hold(world, 20)
        world.ask("b")
        assert world.did[-1] == "stop a"

    def test_it_is_replaced_by_what_is_said_next(self) -> None:
        world = roomy()
        self.hold(world, 20)
        self.hold(world, 5)
        assert world.scheduler.ledger.room("gpu") == 95
        self.hold(world, 0)
        assert world.scheduler.ledger.room("gpu") == 100

    def test_what_can_be_shed_goes_before_any_model(self) -> None:
        world = roomy()
        world.sizes(a=60, b=30)
        world.idle("a")
        self.hold(world, 40, sheddable=True)
        world.ask("b")
        # No more than is needed, and before the load that needs it.
        assert world.did[-2:] == ["shed cache gpu 30", "start b"]
        assert world.scheduler.ledger.room("gpu") == 0

    def test_where_that_is_not_enough_models_go_too(self) -> None:
        world = roomy()
        world.sizes(a=60, b=60)
        world.idle("a")
        self.hold(world, 20, sheddable=True)
        world.ask("b")
        assert world.did[-1] == "stop a"
        assert world.exited("a") == ["start b"]

    def test_it_is_shed_for_other_programs_too(self) -> None:
        world = roomy()
        world.sizes(a=60)
        world.idle("a")
        self.hold(world, 40, sheddable=True)
        assert world.memory(gpu=100, others=10) == ["shed cache gpu 10"]
        assert world.memory(gpu=100, others=50) == ["shed cache gpu 30", "stop a"]

    def test_what_is_held_too_much_is_shed_at_once(self) -> None:
        world = roomy()
        world.sizes(a=60)
        world.idle("a")
        assert self.hold(world, 50, sheddable=True) == ["shed cache gpu 10"]

    def test_what_nobody_waits_for_costs_no_holder_anything(self) -> None:
        world = roomy()
        world.sizes(a=60)
        self.hold(world, 50, sheddable=True)
        world.priced("a", world.prices["a"])
        assert world.predict("a") == []
