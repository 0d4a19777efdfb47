"""Where models go on a machine that need not exist."""

from __future__ import annotations

from llm_router_mw.simulator.machine import Machine
from llm_router_mw.simulator.trace import ModelFacts


def facts(size: int) -> ModelFacts:
    return ModelFacts(
        model="m", size_bytes=size, context_bytes=10, overhead_bytes=4, load_seconds=1.0
    )


def test_a_model_may_go_on_each_gpu_that_is_large_enough() -> None:
    machine = Machine({"small": 50, "large": 100, "other": 90, "host": 1000}, margin_bytes=5)

    prices = machine.prices(facts(80))

    assert [price.placement.devices for price in prices] == [("large",), ("other",)]
    assert [price.bytes_by_pool for price in prices] == [{"large": 80}, {"other": 80}]


def test_one_that_is_too_large_for_each_is_split_over_all() -> None:
    [price] = Machine({"a": 100, "b": 300, "host": 1000}).prices(facts(320))

    assert price.placement.devices == ("a", "b")
    assert price.placement.split_mode == "layer"
    assert price.bytes_by_pool == {"a": 80, "b": 240}


def test_without_a_gpu_it_goes_on_the_host() -> None:
    [price] = Machine({"host": 1000}).prices(facts(80))

    assert price.placement.devices == ()
    assert price.placement.n_gpu_layers == 0
    assert price.bytes_by_pool == {"host": 80}


def test_what_sleep_gives_back_is_said() -> None:
    [price] = Machine({"gpu": 100}).prices(facts(80))

    assert price.context_bytes_by_pool == {"gpu": 10}
    assert price.weights_bytes_by_pool == {"gpu": 66}


def test_the_margin_stays_free() -> None:
    machine = Machine({"gpu": 100, "host": 50}, margin_bytes=5)

    assert machine.capacity_bytes == 95
    assert {pool: each.capacity_bytes for pool, each in machine.readings().items()} == {
        "gpu": 95,
        "host": 45,
    }
    assert machine.prices(facts(95))[0].bytes_by_pool == {"gpu": 95}
