"""Routes of plugins: served where a door asks for them, to those who may use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Scope

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.errors import ConfigError, InvalidRequestError
from llm_router_mw.protocols import Access, RouteGroup
from tests.support.fake_router import FakeRouter


async def tags(request: Request) -> JSONResponse:
    scope = request.scope
    about = {"owner": scope["llm_router_owner"], "manager": scope["llm_router_manager"]}
    return JSONResponse({"router": type(scope["llm_router"]).__name__, **about})


async def refuse(request: Request) -> JSONResponse:
    raise InvalidRequestError("that is wrong; say it otherwise", param="x")


async def break_down(request: Request) -> JSONResponse:
    raise KeyError("a secret")


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await request.body())


async def below(scope: Scope, receive: Any, send: Any) -> None:
    await PlainTextResponse(scope["path"])(scope, receive, send)


class Group:
    """Some routes of a plugin."""

    name = "extra"
    routes: Sequence[BaseRoute] = (
        Route("/api/tags", tags),
        Route("/api/refuse", refuse, methods=["POST"]),
        Route("/api/refuse", refuse, methods=["PUT"]),
        Route("/api/broken", break_down),
        Route("/api/echo", echo, methods=["POST"]),
        Mount("/files", below),
        Route("/v1/models", tags),
        Route("/v1/tags", tags),
    )

    def __init__(self, access: Access = "inference") -> None:
        self.access: Access = access


def api(access: Access = "inference", **settings: Any) -> RouterAPI:
    groups: dict[str, RouteGroup] = {"extra": Group(access)}
    options = {"routes": ("inference", "extra"), **settings}
    return RouterAPI(FakeRouter(), api_settings(added=groups, **options))


def client(app: RouterAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def scope(path: str) -> Scope:
    return {"type": "http", "method": "GET", "path": path, "headers": []}


@pytest.mark.asyncio
@pytest.mark.parametrize("prefix", ["", "/llm"])
async def test_a_request_is_matched_once(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, matched = api(prefix=prefix), []
    matches = Route.matches

    def counted(route: Route, scope: Scope) -> Any:
        matched.append(route.path)
        return matches(route, scope)

    monkeypatch.setattr(Route, "matches", counted)

    async def door(scope: Scope, receive: Any, send: Any) -> None:
        assert app.claims(scope)
        await app(scope, receive, send)

    transport = httpx.ASGITransport(door)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get(f"{prefix}/api/tags")).json()["router"] == "FakeRouter"
    assert matched == ["/api/tags"]


def test_they_are_claimed_only_where_the_door_asks_for_them() -> None:
    assert api().claims(scope("/api/tags"))
    assert api().claims(scope("/files/a/b"))
    assert not api().claims(scope("/api/other"))
    assert not api(routes=("inference",)).claims(scope("/api/tags"))


@pytest.mark.asyncio
async def test_the_prefix_goes_before_them() -> None:
    prefixed = api(prefix="/llm")
    assert not prefixed.claims(scope("/api/tags"))
    async with client(prefixed) as http:
        assert (await http.get("/llm/api/tags")).status_code == 200


@pytest.mark.parametrize("path", ["/app/llm/api/tags", "/llm/api/tags"])
def test_the_prefix_comes_after_the_mount_point_whether_the_path_has_that_or_not(path: str) -> None:
    prefixed = api(prefix="/llm")
    assert prefixed.claims({**scope(path), "root_path": "/app"})
    assert not prefixed.claims({**scope(path.replace("/llm", "")), "root_path": "/app"})


@pytest.mark.asyncio
async def test_they_never_stand_before_ours_and_may_stand_beside_them() -> None:
    async with client(api()) as http:
        assert (await http.get("/v1/models")).json()["object"] == "list"
        assert (await http.get("/v1/tags")).json()["router"] == "FakeRouter"


@pytest.mark.asyncio
async def test_an_endpoint_finds_the_router() -> None:
    async with client(api()) as http:
        assert (await http.get("/api/tags")).json() == {
            "router": "FakeRouter",
            "owner": "",
            "manager": False,
        }


@pytest.mark.asyncio
async def test_an_endpoint_learns_for_whom_it_works_but_not_the_key() -> None:
    async with client(api(api_keys=["one", "two"])) as http:
        owners = [
            (await http.get("/api/tags", headers={"X-Api-Key": key})).json()["owner"]
            for key in ("one", "one", "two")
        ]
    assert owners[0] == owners[1] != owners[2]
    assert not any(key in owner for key in ("one", "two") for owner in owners)


@pytest.mark.asyncio
async def test_an_endpoint_learns_whether_it_works_for_a_manager() -> None:
    async with client(api(api_keys=["user"], admin_keys=["boss"])) as http:
        found = {
            key: (await http.get("/api/tags", headers={"X-Api-Key": key})).json()["manager"]
            for key in ("user", "boss")
        }
    assert found == {"user": False, "boss": True}


@pytest.mark.parametrize(
    ("access", "key", "status"),
    [
        ("public", None, 200),
        ("inference", None, 401),
        ("inference", "user", 200),
        ("management", "user", 401),
        ("management", "admin", 200),
    ],
)
@pytest.mark.asyncio
async def test_the_group_says_who_may_use_it(access: Access, key: str | None, status: int) -> None:
    app = api(access, api_keys=["user"], admin_keys=["admin"])
    headers = {} if key is None else {"X-Api-Key": key}
    async with client(app) as http:
        assert (await http.get("/api/tags", headers=headers)).status_code == status


@pytest.mark.asyncio
async def test_nothing_is_started_for_who_may_not_use_it() -> None:
    async def start() -> None:
        pytest.fail("the router was started")

    groups: dict[str, RouteGroup] = {"extra": Group("inference")}
    settings = api_settings(routes=["extra"], added=groups, api_keys=["user"])
    async with client(RouterAPI(FakeRouter(), settings, start)) as http:
        assert (await http.get("/api/tags")).status_code == 401


async def in_pieces() -> AsyncIterator[bytes]:
    yield b"12345"
    yield b"67890"


@pytest.mark.parametrize("content", [b"1234567890", in_pieces()])
@pytest.mark.asyncio
async def test_a_body_over_the_limit_is_refused(content: bytes | AsyncIterator[bytes]) -> None:
    async with client(api(max_body_bytes=9)) as http:
        assert (await http.post("/api/echo", content=content)).status_code == 413
        assert (await http.post("/api/echo", content=b"123456789")).text == "123456789"


@pytest.mark.asyncio
async def test_an_error_of_the_package_is_answered_as_ours_are() -> None:
    async with client(api()) as http:
        answer = await http.post("/api/refuse")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x"


@pytest.mark.asyncio
async def test_another_error_tells_nothing_of_the_inside() -> None:
    async with client(api()) as http:
        answer = await http.get("/api/broken")
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.asyncio
async def test_a_method_that_a_route_does_not_take_is_named_with_those_that_it_does() -> None:
    async with client(api()) as http:
        assert (await http.put("/api/refuse")).status_code == 400  # a later route takes it
        answer = await http.delete("/api/refuse")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_routes_for_managers_need_protection() -> None:
    with pytest.raises(ConfigError, match="admin_keys"):
        api("management")


def test_an_unknown_group_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="'nothing'; known are extra, inference, management"):
        api(routes=("nothing",))


@pytest.mark.parametrize("name", ["inference", "management"])
def test_a_group_must_not_be_called_as_ours_are(name: str) -> None:
    groups: dict[str, RouteGroup] = {name: Group()}
    with pytest.raises(ConfigError, match=f"{name!r}.* rename"):
        api_settings(added=groups)
