"""Every hook, as a plugin's author would use it: what is supplied is what the router works with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llm_router_mw import LLMRouterApp, Router, hookspecs
from llm_router_mw.cli import main
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import PermissionDeniedError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.testing import FakeDevices, FakeEngine, small_model
from llm_router_mw.types import (
    HOST,
    Cost,
    Device,
    MemoryEstimate,
    Model,
    Placement,
    RouterEvent,
)
from tests.support.entry_points import entry_point, install
from tests.support.waiting import until

MakeRouter = Callable[..., Router]
HELLO = [{"role": "user", "content": "hello"}]


def plugin(**hooks: Callable[..., Any]) -> object:
    """Return a plugin that implements *hooks*, named without the prefix that all of them have."""
    return SimpleNamespace(
        **{f"llm_router_{name}": hookimpl(function) for name, function in hooks.items()}
    )


def supplies(hook: str, *things: Any) -> object:
    """Return a plugin that supplies *things* for *hook*."""
    return plugin(**{hook: lambda: list(things)})


def test_every_hook_is_tried_here() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("llm_router_")}
    tried = {name.replace("test_hook_", "llm_router_") for name in globals()}
    assert hooks <= tried


@pytest.mark.asyncio
async def test_hook_register_model_sources(make_llm_router: MakeRouter, tmp_path: Path) -> None:
    path = small_model().write(tmp_path / "mine.gguf")
    source = SimpleNamespace(
        name="mine", models=lambda: [Model(id="mine", path=str(path), source="mine")]
    )
    async with make_llm_router(supplies("register_model_sources", source)) as router:
        assert "mine" in {view.id for view in router.models()}
        await router.load("mine")


@pytest.mark.asyncio
async def test_hook_register_engines(make_llm_router: MakeRouter) -> None:
    engine = FakeEngine()
    engine.name = "other"
    async with make_llm_router(supplies("register_engines", engine), engine="other") as router:
        await router.load("a")
    assert engine.loads == ["a"]


@pytest.mark.asyncio
async def test_hook_register_model_resolvers(make_llm_router: MakeRouter) -> None:
    resolver = SimpleNamespace(name="first", resolve=lambda requested, models: models[0].id)
    plugins = supplies("register_model_resolvers", resolver)
    async with make_llm_router(plugins) as router, router.acquire("whatever") as llm:
        assert llm.model == "a"


@pytest.mark.asyncio
async def test_hook_register_device_probes(make_llm_router: MakeRouter) -> None:
    devices = FakeDevices(host_bytes=1000)
    async with make_llm_router(devices) as router:
        running = router._running
        assert running is not None
        reading = running.scheduler.ledger.reading(HOST)
        assert reading is not None
        assert reading.total_bytes == 1000


class Sized:
    """An estimator for which every model has one size."""

    name = "sized"

    def __init__(self, size: int) -> None:
        self.size = size

    def estimate(
        self, model: Model, placement: Placement, devices: Sequence[Device]
    ) -> MemoryEstimate:
        return MemoryEstimate(
            expected={HOST: Cost(weights_bytes=self.size)},
            upper={HOST: self.size},
            source=self.name,
            confidence="high",
        )


@pytest.mark.asyncio
async def test_hook_register_estimators(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    plugins = [supplies("register_estimators", Sized(600)), FakeDevices(host_bytes=1000)]
    async with make_llm_router(*plugins) as router:
        for name in ("a", "b"):  # of which one fits
            await router.load(name)
        loaded = {view.id for view in router.models() if view.status == "loaded"}
    assert llm_router_engine.loads == ["a", "b"]
    assert loaded == {"b"}


class OnHost:
    """A placement policy with another length of context than anybody asked for."""

    name = "on-host"

    def place(self, model: Model, devices: Sequence[Device]) -> list[Placement]:
        return [Placement(n_ctx=333)]


@pytest.mark.asyncio
async def test_hook_register_placement_policies(
    make_llm_router: MakeRouter, llm_router_engine: FakeEngine
) -> None:
    plugins = supplies("register_placement_policies", OnHost())
    async with make_llm_router(plugins, placement_policy="on-host") as router:
        await router.load("a")
    order = llm_router_engine.latest("a").order
    assert order is not None
    assert order.placement is not None
    assert order.placement.n_ctx == 333


@pytest.mark.asyncio
async def test_hook_register_eviction_policies(make_llm_router: MakeRouter) -> None:
    newest = SimpleNamespace(
        name="newest",
        rank=lambda candidates, shortfall, now: sorted(
            candidates, key=lambda candidate: -candidate.loaded_at_seconds
        ),
    )
    plugins = supplies("register_eviction_policies", newest)
    async with make_llm_router(plugins, eviction_policy="newest", models_max=2) as router:
        for name in ("a", "b", "c"):
            await router.load(name)
        loaded = {view.id for view in router.models() if view.status == "loaded"}
    assert loaded == {"a", "c"}


@pytest.mark.asyncio
async def test_hook_register_observers(make_llm_router: MakeRouter) -> None:
    seen: list[RouterEvent] = []
    observer = SimpleNamespace(name="list", on_event=seen.append)
    async with make_llm_router(supplies("register_observers", observer)) as router:
        await router.load("a")
    assert "loaded" in [str(event.state) for event in seen if event.model == "a"]


class NoMoreThanOne:
    """A guard that lets one request pass, and counts what it used."""

    name = "one"

    def __init__(self) -> None:
        self.asked = 0
        self.tokens = 0

    async def before(self, request: Any) -> None:
        self.asked += 1
        if self.asked > 1:
            raise PermissionDeniedError("one is enough")

    async def after(self, request: Any, outcome: Any) -> None:
        self.tokens += outcome.usage.total_tokens


@pytest.mark.asyncio
async def test_hook_register_request_guards(make_llm_router: MakeRouter) -> None:
    guard = NoMoreThanOne()
    async with make_llm_router(supplies("register_request_guards", guard)) as router:
        async with router.acquire("a") as llm:
            await llm.chat(HELLO)
        with pytest.raises(PermissionDeniedError, match="enough"):
            await router.lease("a")
        await until(lambda: guard.tokens == 3)


@pytest.mark.asyncio
async def test_hook_register_sleep_handlers(make_llm_router: MakeRouter) -> None:
    told: list[str] = []

    async def sleep(handle: Any, level: str) -> None:
        told.append(f"{handle.models[0]} sleeps: {level}")

    async def resume(handle: Any) -> None:
        told.append(f"{handle.models[0]} is back")

    handler = SimpleNamespace(name="diary", sleep=sleep, resume=resume)
    async with make_llm_router(supplies("register_sleep_handlers", handler)) as router:
        await router.load("a")
        await router.sleep("a")
        await router.wake("a")
        await until(lambda: told[-1] == "a is back" and len(told) == 3)
    assert told[:3] == ["a is back", "a sleeps: full", "a is back"]


def test_hook_register_chat_formats(make_llm_router: MakeRouter) -> None:
    router = make_llm_router(plugin(register_chat_formats=lambda: {"mine": "module:Class"}))
    assert router._registry.chat_formats["mine"] == "module:Class"


@pytest.mark.asyncio
async def test_hook_register_routes(make_llm_router: MakeRouter) -> None:
    async def tags(request: Request) -> JSONResponse:
        return JSONResponse([view.id for view in request.scope["llm_router"].models()])

    group = SimpleNamespace(name="tags", access="public", routes=[Route("/api/tags", tags)])
    router = make_llm_router(supplies("register_routes", group))
    app = LLMRouterApp(router=router, routes=["tags"])
    transport = httpx.ASGITransport(app)
    async with router, httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/api/tags")).json() == ["a", "b", "c"]


def test_hook_register_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    def register(cli: click.Group) -> None:
        cli.add_command(click.Command("greet", callback=lambda: click.echo("hello")))

    install(monkeypatch, entry_point("mine", plugin(register_commands=register)))
    monkeypatch.setattr(main, "_asked", False)
    monkeypatch.setattr(main, "commands", dict(main.commands))
    assert CliRunner().invoke(main, ["greet"]).output == "hello\n"


@pytest.mark.asyncio
async def test_hook_lifespan(make_llm_router: MakeRouter) -> None:
    log: list[object] = []

    @asynccontextmanager
    async def beside(router: Router) -> AsyncIterator[None]:
        log.append([view.id for view in router.models()])
        yield
        log.append("over")

    async with make_llm_router(plugin(lifespan=lambda router: beside(router))):
        assert log == [["a", "b", "c"]]
    assert log[-1] == "over"


def test_a_hook_may_take_the_config(make_llm_router: MakeRouter) -> None:
    seen: list[RouterConfig] = []

    def register(config: RouterConfig) -> list[Any]:
        seen.append(config)
        return []

    make_llm_router(plugin(register_observers=register), models_max=7)
    assert [config.models_max for config in seen] == [7]
