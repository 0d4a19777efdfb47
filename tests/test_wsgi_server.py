"""The WSGI door around a real Flask under a real waitress."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
import flask
import httpx
import pytest
import waitress

from llm_router_mw.types import ContentDelta
from llm_router_mw.wsgi import LLMRouterWSGIMiddleware
from tests.support.fake_router import FINISH, HELLO, FakeRouter, ScriptItem

WAIT_SECONDS = 10.0
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve *app* on a free port; yields the base URL."""
    server: Any = waitress.create_server(app, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.task_dispatcher.shutdown()
        # Its own loop would miss a close from here until something wakes it up.
        server.trigger.pull_trigger(server.close)
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
def url(router: FakeRouter) -> Iterator[str]:
    app = flask.Flask("host")

    @app.get("/models")
    def own() -> str:
        return "the app's own"

    @app.get("/summarise")
    def summarise() -> str:
        with flask.request.environ["llm_router"].acquire("tiny") as llm:
            text: str = llm.chat([{"role": "user", "content": "Hi"}]).text
            return text

    door = LLMRouterWSGIMiddleware(app.wsgi_app, router=router)
    app.wsgi_app = door  # type: ignore[method-assign]
    with serving(app) as url:
        yield url
    door.close()


def test_the_apps_own_routes_are_untouched(url: str, router: FakeRouter) -> None:
    assert httpx.get(f"{url}/models").text == "the app's own"
    assert router.starts == 0


def test_the_app_uses_the_router_in_blocking_verbs(url: str, router: FakeRouter) -> None:
    assert httpx.get(f"{url}/summarise").text == "Hello"
    assert router.leases[0].released.wait(WAIT_SECONDS)


def test_a_chat_is_answered(url: str) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT).json()
    assert answer["choices"][0]["message"]["content"] == "Hello"


def test_a_streamed_chat_arrives_in_pieces(url: str, router: FakeRouter) -> None:
    gate = threading.Event()

    async def wait() -> None:
        assert await anyio.to_thread.run_sync(gate.wait, WAIT_SECONDS)

    router.scripts["slow"] = [ContentDelta("first"), wait, ContentDelta("second"), FINISH]
    body = {**CHAT, "model": "slow", "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        pieces = response.iter_text()
        assert "first" in next(pieces)
        gate.set()
        rest = "".join(pieces)
    assert "second" in rest
    assert rest.endswith("data: [DONE]\n\n")


def test_a_client_that_hangs_up_cancels_its_stream(url: str, router: FakeRouter) -> None:
    async def tick() -> None:
        await anyio.sleep(0.01)

    endless: list[ScriptItem] = [item for _ in range(100_000) for item in (HELLO[0], tick)]
    router.scripts["endless"] = endless
    body = {**CHAT, "model": "endless", "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        assert "Hel" in next(response.iter_text())
    assert router.leases[0].released.wait(WAIT_SECONDS)
    assert router.leases[0].streams[0].cancelled.is_set()
