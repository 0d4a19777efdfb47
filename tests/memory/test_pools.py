"""Devices and the pools that they draw from."""

from __future__ import annotations

from llm_router_mw.memory.pools import by_pool
from llm_router_mw.types import HOST, Device


def device(identity: str, pool: str) -> Device:
    return Device(id=identity, pool=pool, kind="other", name="", total_bytes=0, free_bytes=0)


def test_what_shares_a_pool_adds_up() -> None:
    devices = (device(HOST, HOST), device("gpu", HOST), device("card", "card"))
    assert by_pool({HOST: 1, "gpu": 2, "card": 4}, devices) == {HOST: 3, "card": 4}


def test_a_device_that_is_not_known_is_a_pool_of_its_own() -> None:
    assert by_pool({"card": 4}, ()) == {"card": 4}
