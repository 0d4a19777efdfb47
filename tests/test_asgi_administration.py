"""Nothing administrative is reachable by default, however a path is written; with keys, by keys."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from llm_router_mw import LLMRouterApp, LLMRouterMiddleware
from llm_router_mw.api.routes import _INFERENCE, _MANAGEMENT
from tests.support.asgi_driver import get, post
from tests.support.fake_router import FakeRouter
from tests.support.serving import WAIT_SECONDS, serving

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "LOAD"]
OF_THE_APP = 418
ADMINISTRATIVE = sorted(_MANAGEMENT)
OPEN_TO_ALL = [path for path, route in _MANAGEMENT.items() if route.access == "public"]


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that knows no path, and has a status of its own for that."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    body = f"the app's own: {Request(scope).url.path}"
    await PlainTextResponse(body, OF_THE_APP)(scope, receive, send)


class Guarded(FakeRouter):
    """Remembers what was looked at, too."""

    looks = 0

    def overview(self) -> Any:
        self.looks += 1
        return super().overview()

    async def tasks(self, model: str) -> Any:
        self.looks += 1
        return await super().tasks(model)

    async def cached(self) -> Any:
        self.looks += 1
        return await super().cached()

    @property
    def untouched(self) -> bool:
        return not (self.calls or self.demands or self.subscribers or self.looks)


@pytest.fixture
def router() -> Guarded:
    router = Guarded()
    router.running = True
    return router


def spellings(path: str) -> list[str]:
    """Return *path* as a client may write it, in the hope that somebody reads it otherwise."""
    first, rest = path[:2], path[2:]
    encoded = f"/%{ord(path[1]):02x}{rest}"
    return [
        path,
        f"/{path}",
        f"{path}/",
        f"{path}//",
        path.replace("/", "//"),
        path.replace("/", "/./"),
        f"/x/..{path}",
        f"/v1/..{path}",
        f"/v1x{path}",
        encoded,
        path.replace("/", "%2f"),
        f"/{path[1:].replace('/', '%2F')}",
        first.upper() + rest,
        f"{path};x",
        f"{path}?autoload=1",
        f"{path}%00",
        f"{path}%20",
    ]


# The path as a server would give it, decoded


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ADMINISTRATIVE)
async def test_by_default_each_of_them_is_the_apps(router: Guarded, path: str) -> None:
    door = LLMRouterMiddleware(inner, router=router)
    for spelling in (path, f"/{path}", f"{path}/", path.replace("/", "//"), path.upper()):
        for method in METHODS:
            answer = await get(door, spelling, method)
            # All of /v1/ is ours: there we say ourselves that there is nothing.
            ours = spelling.startswith("/v1/")
            assert answer.status == (404 if ours else OF_THE_APP), (method, spelling)
    assert router.untouched


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ADMINISTRATIVE)
async def test_by_default_a_mount_knows_none_of_them(router: Guarded, path: str) -> None:
    llm = LLMRouterApp(router=router)
    for method in METHODS:
        assert (await get(llm, path, method)).status == 404
    assert router.untouched


@pytest.mark.asyncio
@pytest.mark.parametrize("path", sorted(set(ADMINISTRATIVE) - set(OPEN_TO_ALL)))
async def test_where_it_is_asked_for_it_needs_the_key(router: Guarded, path: str) -> None:
    door = LLMRouterMiddleware(
        inner,
        router=router,
        routes=["inference", "management"],
        api_keys=["user"],
        admin_keys=["admin"],
    )
    method = "POST" if "POST" in _MANAGEMENT[path].handlers else "GET"
    keys: list[list[tuple[bytes, bytes]]] = [[], [(b"authorization", b"Bearer wrong")]]
    if _MANAGEMENT[path].access == "management":
        keys.append([(b"authorization", b"Bearer user")])
    for headers in keys:
        assert (await get(door, path, method, headers=headers)).status == 401
        for spelling in (f"/{path}", f"{path}/", path.replace("/", "//"), path.upper()):
            answer = await get(door, spelling, method, headers=headers)
            assert answer.status in (401, 404, OF_THE_APP), spelling
    assert router.untouched


@pytest.mark.asyncio
async def test_inference_asks_for_no_more_than_it_needs(router: Guarded) -> None:
    """What a client says in a request may not manage either: that needs the admin key."""
    door = LLMRouterMiddleware(inner, router=router)
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    for field in ({"keep_alive": -1}, {"priority": 5}):
        assert (await post(door, "/v1/chat/completions", {**chat, **field})).status == 403
    assert router.untouched


# As clients write it, through a real server


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[str, Guarded]]:
    router = Guarded()
    with serving(LLMRouterMiddleware(inner, router=router)) as url:
        yield url, router


def answer_to(url: str, line: str) -> tuple[int, str]:
    """Return status and text of what a server says to the request line *line*, as it is."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0), WAIT_SECONDS) as connection:
        head = f"{line} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize("path", ADMINISTRATIVE)
def test_no_spelling_reaches_any_of_them(site: tuple[str, Guarded], path: str) -> None:
    url, router = site
    for spelling in spellings(path):
        for method in ("GET", "POST"):
            status, text = answer_to(url, f"{method} {spelling}")
            # 400: the server itself takes no such path.
            assert status in (400, 404, OF_THE_APP), (method, spelling)
            assert status != OF_THE_APP or text.startswith("the app's own"), spelling
            assert status != 404 or "nothing is served at" in text, spelling
    assert router.untouched


def test_spellings_that_are_ours_are_the_routes_of_inference(site: tuple[str, Guarded]) -> None:
    """Servers decode a path before we see it: an encoded one is the same path."""
    url, _ = site
    assert answer_to(url, "GET /%761/models")[0] == 200
    assert answer_to(url, "GET //v1/models")[0] == OF_THE_APP
    assert answer_to(url, "POST /v1/models")[0] == 405
    assert all(path.startswith("/v1/") for path in _INFERENCE)
