"""What the package offers for others' tests, used as others would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_router_mw import Router, testing
from llm_router_mw.gguf import read_headers
from llm_router_mw.testing import FakeDevices, FakeEngine, VirtualClock
from llm_router_mw.types import HOST


@pytest.mark.asyncio
async def test_a_router_is_made_whose_models_echo(
    make_llm_router: Callable[..., Router], llm_router_engine: FakeEngine
) -> None:
    async with make_llm_router(models=["x", "y"], models_max=1) as router:
        async with router.acquire("x") as llm:
            reply = await llm.chat([{"role": "user", "content": "hello"}])
        async with router.acquire("y"):
            pass
    assert reply.text == "echo: hello"
    assert llm_router_engine.loads == ["x", "y"]


@pytest.mark.asyncio
async def test_plugins_are_tried_in_it(
    make_llm_router: Callable[..., Router], llm_router_devices: FakeDevices
) -> None:
    async with make_llm_router(llm_router_devices) as router:
        assert [model.id for model in router.models()] == ["a", "b", "c"]


def test_a_clock_stands_still_until_it_is_told_to_advance(llm_router_clock: VirtualClock) -> None:
    assert llm_router_clock() == llm_router_clock()
    llm_router_clock.advance(2.5)
    assert llm_router_clock() == 2.5


def test_devices_have_what_a_test_leaves_them() -> None:
    devices = FakeDevices({"gpu": 1000}, host_bytes=2000)
    devices.set_free("gpu", 10)
    found = {each.id: (each.free_bytes, each.total_bytes) for each in devices.inventory()}
    assert found == {HOST: (2000, 2000), "gpu": (10, 1000)}


def test_a_file_that_is_written_can_be_read(tmp_path: Path) -> None:
    path = testing.write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"})
    [header] = read_headers(str(path))
    assert header.metadata["general.architecture"] == "llama"
