"""A router that its first use starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_router_mw.router import OnDemandRouter, Router, RouterThread
from llm_router_mw.testing import FakePlugin
from llm_router_mw.types import InstanceState, Wish

pytestmark = pytest.mark.asyncio


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(plugins=[FakePlugin(tmp_path)], engine="fake")


@pytest.fixture
def on_demand(router: Router) -> Iterator[OnDemandRouter]:
    thread = RouterThread(router)
    yield OnDemandRouter(thread)
    thread.stop()


async def test_nothing_runs_before_it_is_used(router: Router, on_demand: OnDemandRouter) -> None:
    assert not router.running


async def test_a_lease_starts_it(router: Router, on_demand: OnDemandRouter) -> None:
    async with on_demand.acquire("a") as llm:
        assert router.running
        reply = await llm.chat([{"role": "user", "content": "hi"}])
    assert reply.text == "echo: hi"


async def test_several_are_taken_at_once(on_demand: OnDemandRouter) -> None:
    async with on_demand.acquire("a", "b") as leases:
        assert [lease.model for lease in leases] == ["a", "b"]


async def test_each_verb_starts_it(router: Router, on_demand: OnDemandRouter) -> None:
    await on_demand.load("a")
    assert await on_demand.unload("a")
    lease = await on_demand.lease("b", Wish(priority=1, timeout_seconds=5.0))
    lease.release()
    assert await on_demand.sleep("b")
    assert on_demand.models()[1].state is InstanceState.SLEEPING
    await on_demand.wake("b")
    assert on_demand.models()[1].state is InstanceState.LOADED
    async with on_demand.events() as events:
        assert (await anext(aiter(events))).kind == "snapshot"


async def test_demands_are_handed_on(on_demand: OnDemandRouter) -> None:
    async with on_demand.acquire("a", keep_alive_seconds=0.0, timeout_seconds=5.0) as llm:
        assert llm.model == "a"


@pytest.mark.parametrize("look", ["overview", "tasks"])
async def test_looking_starts_it_too(look: str, router: Router, on_demand: OnDemandRouter) -> None:
    if look == "overview":
        assert on_demand.overview().models_max == 4
    else:
        assert await on_demand.tasks("a") == ()
    assert router.running


async def test_listing_starts_it_too(router: Router, on_demand: OnDemandRouter) -> None:
    assert [view.id for view in on_demand.models()] == ["a", "b", "c"]
    assert router.running
