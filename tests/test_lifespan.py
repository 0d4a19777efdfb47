"""Lifespans that run a router, alone and composed with the app's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from llm_router_mw import (
    LLMRouterApp,
    LLMRouterMiddleware,
    compose_lifespans,
    get_router,
    llm_lifespan,
)
from llm_router_mw.errors import ConfigError
from llm_router_mw.lifespan import Lifespan
from tests.support.fake_router import FakeRouter

pytestmark = pytest.mark.asyncio


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


async def state_of(request: Request) -> JSONResponse:
    """Answer with what the app's code sees of the lifespan state."""
    state = request.scope["state"]
    same = state["llm_router"] is get_router(request)
    return JSONResponse({"keys": sorted(state), "same": same})


class Steps:
    """Lifespans that note what is done with them."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def lifespan(
        self, name: str, *, fails_to: str = "", **state: Any
    ) -> Callable[[object], AbstractAsyncContextManager[dict[str, Any] | None]]:
        """Return one that yields *state*, and raises where *fails_to* says: start or stop."""

        @asynccontextmanager
        async def lifespan(app: object) -> AsyncIterator[dict[str, Any] | None]:
            if fails_to == "start":
                raise RuntimeError(f"{name} does not start")
            self.done.append(f"start {name}")
            try:
                yield state or None
            except Exception as error:
                self.done.append(f"{name} saw {error}")
                raise
            finally:
                self.done.append(f"stop {name}")
            if fails_to == "stop":
                raise RuntimeError(f"{name} does not stop")

        return lifespan


@pytest.fixture
def steps() -> Steps:
    return Steps()


# One that runs a router


async def test_the_router_lives_with_the_app_and_is_in_its_state(router: FakeRouter) -> None:
    app = Starlette(routes=[Route("/", state_of)], lifespan=llm_lifespan(router))
    for round_ in (1, 2):
        with TestClient(app) as client:
            assert router.running
            assert client.get("/").json() == {"keys": ["llm_router"], "same": True}
            assert get_router(app) is router
        assert (router.starts, router.stops) == (round_, round_)


async def test_an_error_of_the_app_closes_the_router(router: FakeRouter) -> None:
    with pytest.raises(RuntimeError, match="the app broke"):
        async with llm_lifespan(router)(None):
            raise RuntimeError("the app broke")
    assert router.stops == 1


async def test_a_router_that_does_not_start_is_told_as_it_is() -> None:
    router = FakeRouter(start_error=ConfigError("no such directory"))
    app = Starlette(lifespan=llm_lifespan(router))
    with pytest.raises(ConfigError, match="no such directory"), TestClient(app):
        pass


async def test_a_router_that_runs_already_is_neither_started_nor_stopped(
    router: FakeRouter,
) -> None:
    async with router:
        async with llm_lifespan(router)(None) as state:
            assert state == {"llm_router": router}
        assert router.running
    assert router.starts == 1


async def test_options_are_checked_when_it_is_made(router: FakeRouter) -> None:
    llm_lifespan(models_max=3, client_stall_seconds=5)
    with pytest.raises(ConfigError, match="unknown option 'modelsdir'"):
        llm_lifespan(modelsdir="x")
    with pytest.raises(ConfigError, match="options of a router"):
        llm_lifespan(router, models_dir="x")


# With the doors


async def test_the_lifespan_of_a_mount_gives_the_state_too(router: FakeRouter) -> None:
    llm = LLMRouterApp(router=router)
    routes = [Route("/", state_of), Mount("/llm", llm)]
    with TestClient(Starlette(routes=routes, lifespan=llm.lifespan)) as client:
        assert client.get("/").json() == {"keys": ["llm_router"], "same": True}
        assert client.get("/llm/v1/models").status_code == 200
    assert (router.starts, router.stops) == (1, 1)


@pytest.mark.parametrize("door", ["middleware", "mount"])
async def test_a_door_beside_it_uses_the_router_that_runs(router: FakeRouter, door: str) -> None:
    app = Starlette(routes=[Route("/", state_of)], lifespan=llm_lifespan(router))
    if door == "middleware":
        app.add_middleware(LLMRouterMiddleware, router=router)
    else:
        app.mount("/", LLMRouterApp(router=router))
    with TestClient(app) as client:
        assert client.get("/").json() == {"keys": ["llm_router"], "same": True}
        assert client.get("/v1/models").status_code == 200
    assert (router.starts, router.stops) == (1, 1)


# Several


async def test_they_start_in_order_stop_in_reverse_and_share_the_state(steps: Steps) -> None:
    composed = compose_lifespans(
        steps.lifespan("a", db=1), steps.lifespan("b"), steps.lifespan("c", cache=2)
    )
    async with composed(None) as state:
        assert state == {"db": 1, "cache": 2}
        assert steps.done == ["start a", "start b", "start c"]
    assert steps.done[3:] == ["stop c", "stop b", "stop a"]


async def test_each_is_given_the_app() -> None:
    given: list[object] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        given.append(app)
        yield

    app = Starlette(lifespan=compose_lifespans(lifespan, lifespan))
    with TestClient(app):
        assert given == [app, app]


async def test_one_that_does_not_start_closes_those_before_it(steps: Steps) -> None:
    composed = compose_lifespans(
        steps.lifespan("a"),
        steps.lifespan("b"),
        steps.lifespan("c", fails_to="start"),
        steps.lifespan("d"),
    )
    with pytest.raises(RuntimeError, match="c does not start"):
        async with composed(None):
            pytest.fail("it has started")
    closed = ["b saw c does not start", "stop b", "a saw c does not start", "stop a"]
    assert steps.done == ["start a", "start b", *closed]


async def test_one_that_does_not_stop_keeps_none_from_stopping(steps: Steps) -> None:
    composed = compose_lifespans(
        steps.lifespan("a"), steps.lifespan("b", fails_to="stop"), steps.lifespan("c")
    )
    with pytest.raises(RuntimeError, match="b does not stop"):
        async with composed(None):
            pass
    assert steps.done[3:] == ["stop c", "stop b", "a saw b does not stop", "stop a"]


async def test_an_error_of_the_app_is_seen_by_all(steps: Steps) -> None:
    composed = compose_lifespans(steps.lifespan("a"), steps.lifespan("b"))
    with pytest.raises(RuntimeError, match="the app broke"):
        async with composed(None):
            raise RuntimeError("the app broke")
    closed = ["b saw the app broke", "stop b", "a saw the app broke", "stop a"]
    assert steps.done[2:] == closed


async def test_one_state_does_not_hide_another(steps: Steps) -> None:
    composed = compose_lifespans(steps.lifespan("a", db=1), steps.lifespan("b", db=2))
    with pytest.raises(ConfigError, match=r"two lifespans yield the state 'db'.*rename it"):
        async with composed(None):
            pytest.fail("it has started")
    assert steps.done[-1] == "stop a"


async def test_none_at_all_is_a_lifespan_too() -> None:
    composed: Lifespan[None] = compose_lifespans()
    async with composed(None) as state:
        assert state == {}


async def test_a_lifespan_may_use_the_router_that_was_started_before_it(
    router: FakeRouter,
) -> None:
    said: list[str] = []

    @asynccontextmanager
    async def warm_up(app: Starlette) -> AsyncIterator[None]:
        async with get_router(app).acquire("tiny") as llm:
            said.append((await llm.complete("Once")).text)
        yield
        assert router.running

    app = Starlette(lifespan=compose_lifespans(llm_lifespan(router), warm_up))
    with TestClient(app):
        assert said == ["Hello"]
    assert not router.running
