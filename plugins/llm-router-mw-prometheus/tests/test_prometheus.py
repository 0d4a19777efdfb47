"""What a router does can be read as metrics, by who may, and reading wakes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_router_mw import LLMRouterApp, Router
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.testing import FakeEngine

pytestmark = pytest.mark.asyncio

MakeRouter = Callable[..., Router]
KEY = {"X-Api-Key": "admin"}
HELLO = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
Values = dict[tuple[str, ...], float]


class Site:
    """A router and a client of it."""

    def __init__(self, router: Router, http: httpx.AsyncClient) -> None:
        self.router = router
        self.http = http

    async def metrics(self) -> Values:
        """Return the value of each metric, by its name and its labels (in order of their names)."""
        answer = await self.http.get("/metrics", headers=KEY)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    async def reach(self, *name: str, value: float = 1) -> Values:
        """Return all metrics once *name* has *value*."""
        for _ in range(500):
            found = await self.metrics()
            if found.get(name) == value:
                return found
            await anyio.sleep(0.01)
        raise AssertionError(f"{name} is {found.get(name)}")


@asynccontextmanager
async def site(router: Router) -> AsyncIterator[Site]:
    app = LLMRouterApp(router=router, routes=["inference", "prometheus"], admin_keys=["admin"])
    transport = httpx.ASGITransport(app)
    async with router, httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield Site(router, http)


async def test_a_request_is_counted_with_its_tokens_and_times(make_llm_router: MakeRouter) -> None:
    async with site(make_llm_router()) as here:
        assert (await here.http.post("/v1/chat/completions", json=HELLO)).status_code == 200
        found = await here.reach("llm_router_requests_total", "a", "served")
    assert found["llm_router_tokens_total", "prompt", "a"] == 1
    assert found["llm_router_tokens_total", "completion", "a"] == 2
    assert found["llm_router_loads_total", "a"] == 1
    assert found["llm_router_wait_seconds_count", "a"] == 1
    assert found["llm_router_held_seconds_count", "a"] == 1


async def test_states_are_those_of_now(make_llm_router: MakeRouter) -> None:
    async with site(make_llm_router()) as here:
        assert (await here.metrics())["llm_router_model_state", "a", "unloaded"] == 1
        async with here.router.acquire("a"):
            found = await here.metrics()
        assert found["llm_router_model_state", "a", "loaded"] == 1
        assert found["llm_router_model_state", "a", "unloaded"] == 0
        assert found["llm_router_model_leases", "a"] == 1
        assert found["llm_router_waiting",] == 0


async def test_evictions_failures_and_wakes_are_counted(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    llm_router_engine.broken["c"] = ModelLoadError("broken")
    async with site(make_llm_router(models_max=1)) as here:
        await here.router.load("a")
        await here.router.load("b")
        await here.router.sleep("b")
        await here.router.wake("b")
        with pytest.raises(ModelLoadError):
            await here.router.load("c")
        found = await here.metrics()
    assert found["llm_router_evictions_total", "a"] == 1
    assert found["llm_router_wakes_total", "b"] == 1
    assert found["llm_router_load_failures_total", "c"] == 1


async def test_reading_wakes_nothing(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    async with site(make_llm_router()) as here:
        await here.router.load("a")
        await here.router.sleep("a")
        found = await here.metrics()
        assert found["llm_router_model_state", "a", "sleeping"] == 1
    assert llm_router_engine.latest("a").told == ["full"]


async def test_metrics_are_for_managers(make_llm_router: MakeRouter) -> None:
    async with site(make_llm_router()) as here:
        assert (await here.http.get("/metrics")).status_code == 401


async def test_each_router_has_metrics_of_its_own(make_llm_router: MakeRouter) -> None:
    async with site(make_llm_router()) as first:
        await first.router.load("a")
        async with site(make_llm_router()) as second:
            assert ("llm_router_loads_total", "a") not in await second.metrics()


async def test_what_plugins_do_wrong_is_counted(make_llm_router: MakeRouter) -> None:
    def fail(event: object) -> None:
        raise ValueError("a bug")

    observer = SimpleNamespace(name="odd", on_event=fail)
    plugin = SimpleNamespace(llm_router_register_observers=hookimpl(lambda: [observer]))
    async with site(make_llm_router(plugin)) as here:
        await here.router.load("a")
        found = await here.metrics()
    assert found["llm_router_plugin_failures_total", "observer 'odd'"] >= 1
