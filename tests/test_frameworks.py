"""Each framework with our routes in front of its own, and with ours mounted below a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import path
from fastapi import FastAPI
from hypercorn.middleware import DispatcherMiddleware
from litestar import Litestar, asgi, get
from quart import Quart
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_router_mw import LLMRouterApp, LLMRouterMiddleware
from tests.support.django_site import django_site
from tests.support.fake_router import FakeRouter

pytestmark = pytest.mark.asyncio

OWN = "the app's own"
BELOW = "/llm"


async def own(request: Request) -> PlainTextResponse:
    return PlainTextResponse(OWN)


def starlette_app(*mounts: Mount) -> Starlette:
    return Starlette(routes=[Route("/own", own), *mounts])


async def fastapi_page() -> PlainTextResponse:
    return PlainTextResponse(OWN)


def fastapi_app() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/own", fastapi_page, response_model=None)
    return app


def quart_app() -> Quart:
    async def page() -> str:
        return OWN

    app = Quart("app")
    app.add_url_rule("/own", "own", page)
    return app


@get("/own", media_type="text/plain")
async def litestar_page() -> str:
    return OWN


def litestar_app(*handlers: Any) -> Litestar:
    return Litestar([litestar_page, *handlers], logging_config=None)


def django_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(OWN)


@pytest.fixture(autouse=True)
def django_pages() -> Iterator[None]:
    with django_site(path("own", django_page)):
        yield


async def bare_app(scope: Scope, receive: Receive, send: Send) -> None:
    status = 200 if scope["path"] == "/own" else 404
    await PlainTextResponse(OWN, status)(scope, receive, send)


APPS: dict[str, Callable[[], Any]] = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "litestar": litestar_app,
    "quart": quart_app,
    "django": ASGIHandler,
    "bare": lambda: bare_app,
}


def mounted(framework: str, llm: ASGIApp) -> Any:
    """Return the app of *framework* with *llm* below a path, as that is done there."""
    match framework:
        case "starlette":
            return starlette_app(Mount(BELOW, llm))
        case "fastapi":
            app = fastapi_app()
            app.mount(BELOW, llm)
            return app
        case "litestar":

            @asgi(BELOW, is_mount=True, copy_scope=True)
            async def handler(scope: Any, receive: Any, send: Any) -> None:
                await llm(scope, receive, send)

            return litestar_app(handler)
        case "quart":
            return DispatcherMiddleware({BELOW: llm, "": quart_app()})  # type: ignore[dict-item]
    # Where there is nothing for it, any other framework's mounts will do.
    return Starlette(routes=[Mount(BELOW, llm), Mount("/", APPS[framework]())])


async def answers(app: ASGIApp, *paths: str) -> list[httpx.Response]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        return [await http.get(path) for path in paths]


def ids(answer: httpx.Response) -> list[str]:
    return [each["id"] for each in answer.json()["data"]]


@pytest.mark.parametrize("framework", APPS)
async def test_our_routes_are_in_front_of_its_own(framework: str) -> None:
    router = FakeRouter()
    door = LLMRouterMiddleware(APPS[framework](), router=router)
    page, models, missing = await answers(door, "/own", "/v1/models", "/v1/nothing")
    assert (page.text, ids(models)) == (OWN, ["tiny"])
    assert "nothing is served at" in missing.json()["error"]["message"]
    door.thread.stop()
    assert (router.starts, router.stops) == (1, 1)


@pytest.mark.parametrize("framework", APPS)
async def test_our_routes_are_below_a_path(framework: str) -> None:
    router = FakeRouter()
    llm = LLMRouterApp(router=router)
    app = mounted(framework, llm)
    page, models, missing = await answers(app, "/own", f"{BELOW}/v1/models", "/v1/models")
    assert (page.text, ids(models)) == (OWN, ["tiny"])
    assert missing.status_code == 404
    llm.thread.stop()
    assert (router.starts, router.stops) == (1, 1)


MANAGEMENT = ("/models", "/props", "/slots", "/models/sse", "/models/cache", "/health")


@pytest.mark.parametrize("framework", APPS)
async def test_nothing_that_manages_is_reached_by_default(framework: str) -> None:
    router = FakeRouter()
    door = LLMRouterMiddleware(APPS[framework](), router=router)
    llm = LLMRouterApp(router=router)
    found = await answers(door, *MANAGEMENT)
    found += await answers(mounted(framework, llm), *(BELOW + path for path in MANAGEMENT))
    assert {each.status_code for each in found} == {404}
    assert (router.calls, router.starts) == ([], 0)
