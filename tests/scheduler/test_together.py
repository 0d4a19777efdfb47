"""Several models asked for at the same time: what can never be is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.scheduler import Companion, Terms
from llm_router_mw.scheduler.together import _MOST_WAYS
from tests.support.scheduling import World, key, price


def test_what_never_fits_together_is_refused_at_once_with_the_sum_of_each_device() -> None:
    world = World(models_max=0)
    world.memory(gpu=100, margin=10)
    world.sizes(a=60, b=50)
    request = world.ask("a", "b")
    refusal = world.rejected[request]
    assert refusal.kind == "ModelTooLargeError"
    assert "'a', 'b' can never fit together" in refusal.message
    assert refusal.fields["devices"] == {"gpu": {"needed_bytes": 110, "available_bytes": 90}}
    assert world.did == [f"reject {request}: ModelTooLargeError"]


def test_each_of_them_can_be_had_alone() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=60, b=50)
    world.ask("a", "b")
    world.serve("a")
    assert world.ask("b") not in world.rejected


def test_nobody_leaves_for_them() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=60, b=50, c=30)
    world.idle("c")
    assert world.ask("a", "b") in world.rejected
    assert "stop c" not in world.did


def test_they_fit_if_one_of_them_may_go_elsewhere() -> None:
    world = World(models_max=0)
    world.memory(gpu=100, host=100)
    world.sizes(a=60)
    world.prices["b"] = (price(gpu=50), price(host=50, degraded=True))
    assert world.ask("a", "b") not in world.rejected


def test_what_others_hold_they_may_give_back() -> None:
    world = World(models_max=0)
    world.memory(gpu=120, others=50)
    world.sizes(a=60, b=50)
    assert world.ask("a", "b") not in world.rejected


def test_what_a_worker_was_seen_to_take_counts_where_it_is_less() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=60, b=50)
    world.ask("a")
    world.loaded("a", gpu=45)
    assert world.ask("a", "b") not in world.rejected


def test_one_of_which_nobody_knows_what_it_needs_is_no_reason() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=60)
    assert world.ask("a", "b") not in world.rejected


def test_a_price_that_comes_later_is_looked_at_then() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.keep_prices_waiting = True
    request = world.ask("a", "b")
    world.priced("a", (price(gpu=60),))
    assert request not in world.rejected
    world.priced("b", (price(gpu=50),))
    assert world.rejected[request].kind == "ModelTooLargeError"


def test_so_is_one_that_must_come_with_others_it_never_fits_beside() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    world.sizes(a=60, b=50)
    world.terms(a=Terms(companions=(Companion("b", key("b")),)))
    refusal = world.rejected[world.ask("a")]
    assert "'a', 'b' can never fit together" in refusal.message


def test_members_of_an_exclusive_group_cannot_be_had_together() -> None:
    world = World(models_max=0)
    world.terms(a=Terms(exclusive_groups=("g",)), b=Terms(exclusive_groups=("h", "g")))
    refusal = world.rejected[world.ask("a", "b")]
    assert refusal.kind == "InvalidRequestError"
    assert "group 'g'" in refusal.message


def test_names_of_one_instance_do_not_exclude_each_other() -> None:
    world = World(models_max=0)
    world.terms(a=Terms(exclusive_groups=("g",)), a2=Terms(exclusive_groups=("g",)))
    request = world.ask_shared(("a", "a"), ("a2", "a"))
    world.loaded("a")
    assert request in world.granted


@pytest.mark.parametrize("limit", ["models_max", "workers_max"])
def test_more_than_there_can_be_are_refused(limit: str) -> None:
    limits: dict[str, Any] = {"models_max": 0, limit: 1}
    world = World(**limits)
    refusal = world.rejected[world.ask("a", "b")]
    assert refusal.kind == "InvalidRequestError"
    assert limit in refusal.message


def test_who_could_be_placed_in_too_many_ways_is_not_judged() -> None:
    world = World(models_max=0)
    world.memory(gpu=100)
    places = tuple(price(gpu=60 + number % 40) for number in range(65))
    world.prices["a"] = world.prices["b"] = places
    assert len(places) ** 2 > _MOST_WAYS
    assert world.ask("a", "b") not in world.rejected
