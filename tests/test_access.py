"""The router as the code of an app gets it, in every framework and however it was mounted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import anyio.from_thread
import flask
import pytest
from fastapi import Depends, FastAPI
from fastapi import WebSocket as FastAPIWebSocket
from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import get as litestar_get
from litestar.testing import TestClient as LitestarClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from llm_router_mw import (
    LLMRouterApp,
    LLMRouterMiddleware,
    LLMRouterWSGIMiddleware,
    get_router,
    get_sync_router,
    llm_lifespan,
)
from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.protocols import RouterContract
from tests.support.fake_router import FakeRouter

Router = Annotated[RouterContract, Depends(get_router)]


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


async def answer(router: RouterContract) -> str:
    """What an app would do with its router. No cast is needed for its type to be known."""
    async with router.acquire("tiny") as llm:
        return (await llm.chat([{"role": "user", "content": "Hi"}])).text


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await answer(get_router(request)))


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await answer(get_router(websocket)))
    await websocket.close()


def starlette_app(**options: Any) -> Starlette:
    return Starlette(routes=[Route("/", page), WebSocketRoute("/talk", talk)], **options)


def by_middleware(router: FakeRouter) -> Starlette:
    app = starlette_app()
    app.add_middleware(LLMRouterMiddleware, router=router)
    return app


def by_mount(router: FakeRouter) -> Starlette:
    llm = LLMRouterApp(router=router)
    app = starlette_app(lifespan=llm.lifespan)
    app.mount("/llm", llm)
    return app


def by_lifespan(router: FakeRouter) -> Starlette:
    return starlette_app(lifespan=llm_lifespan(router))


def below_another_app(router: FakeRouter) -> Starlette:
    return Starlette(routes=[Mount("/", starlette_app())], lifespan=llm_lifespan(router))


@pytest.mark.parametrize("mounted", [by_middleware, by_mount, by_lifespan, below_another_app])
def test_requests_and_websockets_find_it_however_it_was_mounted(
    router: FakeRouter, mounted: Any
) -> None:
    with TestClient(mounted(router)) as client:
        assert client.get("/").text == "Hello"
        with client.websocket_connect("/talk") as websocket:
            assert websocket.receive_text() == "Hello"


def test_without_a_lifespan_the_middleware_gives_one_that_starts_by_itself(
    router: FakeRouter,
) -> None:
    door = LLMRouterMiddleware(starlette_app(), router=router)
    try:
        assert TestClient(door).get("/").text == "Hello"
        assert router.running
    finally:
        door.thread.stop()


def test_the_nearest_router_is_taken(router: FakeRouter) -> None:
    app = Starlette()
    app.state.llm_router = FakeRouter()
    state = {"llm_router": FakeRouter()}
    assert get_router({"llm_router": router, "state": state, "app": app}) is router
    assert get_router({"state": state, "app": app}) is state["llm_router"]
    assert get_router({"state": {}, "app": app}) is app.state.llm_router
    assert get_router(app) is app.state.llm_router


@pytest.mark.parametrize("source", [{}, {"state": {}}, {"app": object()}, Starlette(), object()])
def test_an_app_without_one_is_told_how_to_have_one(source: Any) -> None:
    with pytest.raises(RouterNotRunningError, match=r"LLMRouterMiddleware .*llm_lifespan\(") as e:
        get_router(source)
    assert e.value.status == 503


def test_a_lifespan_that_was_not_run_is_told(router: FakeRouter) -> None:
    client = TestClient(by_lifespan(router))
    with pytest.raises(RouterNotRunningError, match="it was not run"):
        client.get("/")


# Other frameworks


def fastapi_app(**options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/")
    async def page(router: Router) -> str:
        return await answer(router)

    @app.get("/sync")
    def in_a_thread(router: Router) -> str:
        return anyio.from_thread.run(answer, router)

    @app.websocket("/talk")
    async def talk(websocket: FastAPIWebSocket, router: Router) -> None:
        await websocket.accept()
        await websocket.send_text(await answer(router))
        await websocket.close()

    return app


@pytest.mark.parametrize("mounted", ["middleware", "lifespan"])
def test_fastapi_injects_it(router: FakeRouter, mounted: str) -> None:
    if mounted == "lifespan":
        app = fastapi_app(lifespan=llm_lifespan(router))
    else:
        app = fastapi_app()
        app.add_middleware(LLMRouterMiddleware, router=router)
    with TestClient(app) as client:
        assert client.get("/").json() == "Hello"
        assert client.get("/sync").json() == "Hello"
        with client.websocket_connect("/talk") as websocket:
            assert websocket.receive_text() == "Hello"
        # It is no parameter of the request, and no model of the schema.
        assert "parameters" not in client.get("/openapi.json").json()["paths"]["/"]["get"]


@litestar_get("/")
async def litestar_page(request: LitestarRequest[Any, Any, Any]) -> str:
    return await answer(get_router(request))


@pytest.mark.parametrize("mounted", ["middleware", "lifespan"])
def test_litestar_has_it_in_its_requests(router: FakeRouter, mounted: str) -> None:
    if mounted == "lifespan":
        app: Any = Litestar([litestar_page], lifespan=[llm_lifespan(router)])
    else:
        app = LLMRouterMiddleware(Litestar([litestar_page]), router=router)  # type: ignore[arg-type]
    with LitestarClient(app) as client:
        assert client.get("/").text == "Hello"


# WSGI


@pytest.fixture
def flask_client(router: FakeRouter) -> Iterator[Any]:
    app = flask.Flask(__name__)

    @app.get("/")
    def page() -> str:
        with get_sync_router(flask.request).acquire("tiny") as llm:
            return llm.chat([{"role": "user", "content": "Hi"}]).text

    door = LLMRouterWSGIMiddleware(app.wsgi_app, router=router)
    app.wsgi_app = door  # type: ignore[method-assign]
    yield app.test_client()
    door.close()


def test_a_wsgi_app_gets_the_blocking_facade(flask_client: Any) -> None:
    assert flask_client.get("/").text == "Hello"


@pytest.mark.parametrize("source", [{"PATH_INFO": "/"}, object()])
def test_a_wsgi_app_without_one_is_told_how_to_have_one(source: Any) -> None:
    with pytest.raises(RouterNotRunningError, match="wrap it in LLMRouterWSGIMiddleware"):
        get_sync_router(source)
