"""The WSGI door, driven by hand: requests, answers, and who runs the router."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from llm_router_mw.errors import ConfigError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.router import SyncRouter
from llm_router_mw.testing import make_router
from llm_router_mw.types import ContentDelta
from llm_router_mw.wsgi import Exchange, LLMRouterWSGIMiddleware
from tests.support.fake_router import HELLO, FakeRouter, for_ever

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


class Answer:
    """Makes a request of a WSGI application and keeps what it says."""

    def __init__(self, app: Any, environ: dict[str, Any]) -> None:
        self.status = ""
        self.headers: dict[str, str] = {}
        self.pieces: Iterable[bytes] = app(environ, self._start_response)

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        self.status = status
        self.headers = dict(headers)

    @property
    def json(self) -> Any:
        return json.loads(b"".join(self.pieces))

    def close(self) -> None:
        self.pieces.close()  # type: ignore[attr-defined]


def environ(method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    made: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(data)) if data else "",
        "CONTENT_TYPE": "application/json",
        "wsgi.input": io.BytesIO(data + b"and what is not ours"),
        **more,
    }
    setup_testing_defaults(made)
    return made


class Inner:
    """The wrapped app."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.environs.append(environ)
        start_response("200 OK", [])
        return [b"inner"]


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def door(inner: Inner, router: FakeRouter) -> Iterator[LLMRouterWSGIMiddleware]:
    door = LLMRouterWSGIMiddleware(inner, router=router)
    yield door
    door.close()


def test_the_apps_own_requests_go_straight_through(
    door: LLMRouterWSGIMiddleware, inner: Inner, router: FakeRouter
) -> None:
    given = environ("GET", "/models")
    assert list(Answer(door, given).pieces) == [b"inner"]
    assert inner.environs[0] is given
    assert isinstance(given["llm_router"], SyncRouter)
    assert router.starts == 0


def test_ours_are_answered_and_the_router_starts_once(
    door: LLMRouterWSGIMiddleware, inner: Inner, router: FakeRouter
) -> None:
    for _ in range(2):
        answer = Answer(door, environ("POST", "/v1/chat/completions", CHAT))
        assert answer.status == "200 OK"
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["choices"][0]["message"]["content"] == "Hello"
        answer.close()
    assert inner.environs == []
    assert router.starts == 1
    door.close()
    assert router.stops == 1


def test_the_mount_point_and_the_query_are_understood(router: FakeRouter, inner: Inner) -> None:
    door = LLMRouterWSGIMiddleware(inner, router=router, prefix="/llm")
    answer = Answer(
        door,
        environ(
            "POST",
            "/llm/v1/chat/completions",
            CHAT,
            SCRIPT_NAME="/app",
            QUERY_STRING="autoload=0",
        ),
    )
    assert answer.status == "200 OK"
    assert router.autoloads == [False]
    answer.close()
    door.close()


def test_keys_and_addresses_reach_the_api(router: FakeRouter, inner: Inner) -> None:
    scopes: list[Any] = []

    def authorize(scope: Any) -> bool:
        scopes.append(scope)
        return False

    door = LLMRouterWSGIMiddleware(
        inner, router=router, routes=["management"], admin_keys="boss", authorize=authorize
    )
    given = environ(
        "GET", "/models", HTTP_X_API_KEY="boss", REMOTE_ADDR="10.0.0.1", REMOTE_PORT="99"
    )
    answer = Answer(door, given)
    assert answer.status == "200 OK"
    assert scopes[0]["client"] == ("10.0.0.1", 99)
    assert scopes[0]["server"] == ("127.0.0.1", 80)
    assert (scopes[0]["scheme"], scopes[0]["http_version"]) == ("http", "1.0")
    answer.close()
    del given["HTTP_X_API_KEY"]
    refused = Answer(door, given)
    assert refused.status == "401 Unauthorized"
    refused.close()
    door.close()


def test_a_plugin_adds_routes(tmp_path: Path, inner: Inner) -> None:
    class Group:
        name = "extra"
        access = "inference"
        routes = (Route("/extra", lambda request: PlainTextResponse("hello"), methods=["GET"]),)

    class Plugin:
        @hookimpl
        def llm_router_register_routes(self) -> list[Any]:
            return [Group()]

    door = LLMRouterWSGIMiddleware(
        inner, router=make_router(tmp_path, Plugin()), routes=["extra"], api_keys="user"
    )
    answer = Answer(door, environ("GET", "/extra", HTTP_X_API_KEY="user"))
    assert (answer.status, list(answer.pieces)) == ("200 OK", [b"hello"])
    answer.close()
    for given, status in (
        (environ("GET", "/extra"), "401 Unauthorized"),
        (environ("POST", "/extra", HTTP_X_API_KEY="user"), "405 Method Not Allowed"),
    ):
        refused = Answer(door, given)
        assert refused.status == status
        refused.close()
    door.close()


def test_a_path_in_utf_8_is_read_as_such(door: LLMRouterWSGIMiddleware) -> None:
    answer = Answer(door, environ("GET", "/v1/é".encode().decode("latin-1")))
    assert answer.status == "404 Not Found"
    assert "/v1/é" in answer.json["error"]["message"]
    answer.close()


@pytest.mark.parametrize(
    ("body", "more", "status"),
    [
        (b"{", {}, "400"),
        (b'{"model": "\xff"}', {}, "400"),
        (CHAT | {"messages": []}, {}, "400"),
        (CHAT | {"model": "other"}, {}, "404"),
        (CHAT, {"CONTENT_LENGTH": "many"}, "400"),
        (CHAT, {"CONTENT_LENGTH": "99999999999"}, "413"),
    ],
)
def test_bad_requests_are_refused(
    door: LLMRouterWSGIMiddleware, body: Any, more: dict[str, str], status: str
) -> None:
    answer = Answer(door, environ("POST", "/v1/chat/completions", body, **more))
    assert answer.status.startswith(status)
    answer.close()


def test_a_body_that_ends_early_is_what_has_come(door: LLMRouterWSGIMiddleware) -> None:
    whole = json.dumps(CHAT).encode()
    for cut, status in ((len(whole), "200"), (20, "400")):
        given = environ("POST", "/v1/chat/completions", whole, CONTENT_LENGTH="1000")
        given["wsgi.input"] = io.BytesIO(whole[:cut])
        answer = Answer(door, given)
        assert answer.status.startswith(status)
        answer.close()


def test_a_chunked_body_is_read_to_the_end_that_the_server_says(
    door: LLMRouterWSGIMiddleware,
) -> None:
    chat = {**CHAT, "user": "x" * 200_000}  # more than one read
    given = environ("POST", "/v1/chat/completions", None)
    given |= {"wsgi.input_terminated": True, "wsgi.input": io.BytesIO(json.dumps(chat).encode())}
    answer = Answer(door, given)
    assert answer.status == "200 OK"
    answer.close()


def test_a_body_that_cannot_be_read_ends_the_request(
    door: LLMRouterWSGIMiddleware, router: FakeRouter
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the line broke")

    given = environ("POST", "/v1/chat/completions", CHAT) | {"wsgi.input": Broken()}
    with pytest.raises(OSError, match="the line broke"):
        Answer(door, given)
    assert router.leases == []


def test_closing_a_stream_cancels_it(door: LLMRouterWSGIMiddleware, router: FakeRouter) -> None:
    router.scripts["endless"] = [*HELLO[:2], for_ever()]
    body = {**CHAT, "model": "endless", "stream": True}
    answer = Answer(door, environ("POST", "/v1/chat/completions", body))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert b"Hel" in next(iter(answer.pieces))
    answer.close()
    assert router.leases[0].streams[0].cancelled.is_set()
    assert router.leases[0].released.is_set()


def test_a_stream_whose_reader_is_slow_waits_for_it(
    door: LLMRouterWSGIMiddleware, router: FakeRouter
) -> None:
    router.scripts["long"] = [*[ContentDelta(f"{n} ") for n in range(100)], HELLO[-1]]
    body = {**CHAT, "model": "long", "stream": True}
    answer = Answer(door, environ("POST", "/v1/chat/completions", body))
    text = b"".join(answer.pieces).decode()
    assert text.count("data: ") == 103  # role, texts, finish, done
    answer.close()
    assert list(answer.pieces) == []


def test_closing_an_unread_stream_cancels_it(
    door: LLMRouterWSGIMiddleware, router: FakeRouter
) -> None:
    router.scripts["long"] = [ContentDelta("x")] * 100
    body = {**CHAT, "model": "long", "stream": True}
    answer = Answer(door, environ("POST", "/v1/chat/completions", body))
    answer.close()
    assert router.leases[0].released.is_set()


def test_a_client_that_stalls_is_given_up(router: FakeRouter, inner: Inner) -> None:
    door = LLMRouterWSGIMiddleware(inner, router=router, client_stall_seconds=0.05)
    router.scripts["long"] = [ContentDelta("x")] * 100
    body = {**CHAT, "model": "long", "stream": True}
    answer = Answer(door, environ("POST", "/v1/chat/completions", body))
    assert router.leases[0].released.wait(10)
    answer.close()
    door.close()


def test_a_router_that_does_not_start_is_told_to_the_client(inner: Inner) -> None:
    router = FakeRouter(start_error=ConfigError("no such directory"))
    door = LLMRouterWSGIMiddleware(inner, router=router)
    answer = Answer(door, environ("GET", "/v1/models"))
    assert answer.status == "500 Internal Server Error"
    assert answer.json["error"]["message"] == "no such directory"
    assert "retry-after" not in answer.headers


def test_a_router_that_was_started_before_a_fork_is_refused_in_the_child(
    door: LLMRouterWSGIMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    Answer(door, environ("GET", "/v1/models")).close()  # starts the router
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        answer = Answer(door, environ("GET", "/v1/models"))
        assert answer.status == "503 Service Unavailable"
        assert answer.headers["retry-after"] == "1"
        assert "pass the router's options instead" in answer.json["error"]["message"]


def test_an_answer_without_a_beginning_is_an_error(door: LLMRouterWSGIMiddleware) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    Answer(door, environ("GET", "/v1/models")).close()  # starts the thread
    (process,) = door._processes.values()
    exchange = Exchange(process.thread.portal, silent, {}, iter(()))
    with pytest.raises(RuntimeError, match="without an answer"):
        exchange.start(lambda status, headers: None)  # type: ignore[arg-type]


def test_an_exchange_may_be_closed_after_its_thread(
    door: LLMRouterWSGIMiddleware, router: FakeRouter
) -> None:
    answer = Answer(door, environ("GET", "/v1/models"))
    assert answer.json["data"]
    door.close()
    answer.close()


def test_options_are_checked_when_the_door_is_made(inner: Inner) -> None:
    with pytest.raises(ConfigError, match="admin_keys"):
        LLMRouterWSGIMiddleware(inner, router=FakeRouter(), routes=["management"])
    with pytest.raises(ConfigError, match="unknown option 'modelsdir'"):
        LLMRouterWSGIMiddleware(inner, modelsdir="x")


def test_each_process_gets_a_router_of_its_own(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = LLMRouterWSGIMiddleware(inner, models_max=2)
    facades = []
    for pid in (os.getpid(), os.getpid() + 1, os.getpid()):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        given = environ("GET", "/")
        door(given, lambda status, headers: None)  # type: ignore[arg-type]
        facades.append(given["llm_router"])
    assert facades[0] is facades[2]
    assert facades[0] is not facades[1]


def test_closing_a_door_that_was_not_used_here_is_nothing(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = LLMRouterWSGIMiddleware(inner, router=FakeRouter())
    door.close()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    door.close()
