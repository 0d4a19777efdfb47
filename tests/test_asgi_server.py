"""The middleware under a real uvicorn, with real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from llm_router_mw.asgi import LLMRouterMiddleware
from llm_router_mw.types import ContentDelta
from tests.support.fake_router import FINISH, HELLO, FakeRouter, ScriptItem, for_ever
from tests.support.serving import WAIT_SECONDS, Gate, serving

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


async def health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the app's own")


async def summarise(request: Request) -> JSONResponse:
    async with request.scope["llm_router"].acquire("tiny") as llm:
        reply = await llm.chat([{"role": "user", "content": "Hi"}])
    return JSONResponse({"summary": reply.text})


def host_app(router: FakeRouter, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/health", health), Route("/summarise", summarise)])
    app.add_middleware(LLMRouterMiddleware, router=router, **options)
    return app


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture
def url(router: FakeRouter) -> Iterator[str]:
    with serving(host_app(router)) as url:
        assert router.running
        yield url
    assert not router.running


def seen(condition: Callable[[], bool]) -> bool:
    """Wait until *condition* holds, within bounds."""
    gate = threading.Event()
    for _ in range(int(WAIT_SECONDS / 0.01)):
        if condition():
            return True
        gate.wait(0.01)
    return False


def test_the_official_client_reads_answers_and_streams(url: str) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        messages: list[Any] = CHAT["messages"]  # type: ignore[assignment]
        reply = client.chat.completions.create(model="tiny", messages=messages)
        assert reply.choices[0].message.content == "Hello"
        assert reply.usage is not None
        assert reply.usage.total_tokens == 7
        stream = client.chat.completions.create(
            model="tiny",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        assert [c.choices[0].delta.content for c in chunks[:-2]] == ["", "Hel", "lo"]
        assert chunks[-1].usage is not None
        text = client.completions.create(model="tiny", prompt="Once")
        assert text.choices[0].text == "Hello"
        assert [model.id for model in client.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError) as caught:
            client.completions.create(model="other", prompt="Once")
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            client.completions.create(model="tiny", prompt="Once", max_tokens=0)


def test_the_apps_own_routes_and_its_own_use_of_the_router(url: str, router: FakeRouter) -> None:
    assert httpx.get(f"{url}/health").text == "the app's own"
    assert httpx.get(f"{url}/summarise").json() == {"summary": "Hello"}
    assert router.leases[0].released.is_set()


def test_head_is_answered_without_a_body(url: str) -> None:
    answer = httpx.head(f"{url}/v1/models")
    assert (answer.status_code, answer.content) == (200, b"")


async def let_through(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def test_middleware_around_us_does_no_harm(router: FakeRouter) -> None:
    gate = Gate()
    router.scripts["slow"] = [ContentDelta("first"), gate, ContentDelta("second"), FINISH]
    app = host_app(router)
    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(BaseHTTPMiddleware, dispatch=let_through)
    body = {**CHAT, "model": "slow", "stream": True}
    with (
        serving(app) as url,
        httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as response,
    ):
        pieces = response.iter_text()
        assert "first" in next(pieces)
        gate.open()
        assert "".join(pieces).endswith("data: [DONE]\n\n")


def test_a_delta_arrives_before_the_next_one_is_there(url: str, router: FakeRouter) -> None:
    gate = Gate()
    router.scripts["slow"] = [ContentDelta("first"), gate, ContentDelta("second"), FINISH]
    body = {**CHAT, "model": "slow", "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        pieces = response.iter_text()
        assert "first" in next(pieces)
        gate.open()
        assert "".join(pieces).endswith("data: [DONE]\n\n")


def test_a_client_that_hangs_up_in_the_stream_frees_its_lease(url: str, router: FakeRouter) -> None:
    router.scripts["endless"] = [*HELLO[:2], for_ever()]
    body = {**CHAT, "model": "endless", "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        assert "Hel" in next(response.iter_text())
    lease = router.leases[0]
    assert lease.released.wait(WAIT_SECONDS)
    assert lease.streams[0].cancelled.is_set()


def test_a_client_that_hangs_up_in_the_queue_gives_up_its_place(
    url: str, router: FakeRouter
) -> None:
    router.waits["tiny"] = for_ever()
    raw = json.dumps(CHAT).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(raw)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as line:
        line.sendall(head.encode() + raw)
        assert seen(lambda: bool(router.autoloads))
    assert router.lease_cancelled.wait(WAIT_SECONDS)
    assert router.leases == []


def test_a_client_that_stops_reading_cannot_hold_its_lease(router: FakeRouter) -> None:
    big = ContentDelta("x" * 100_000)
    script: list[ScriptItem] = [big] * 1000
    router.scripts["big"] = [*script, FINISH]
    raw = json.dumps({**CHAT, "model": "big", "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(raw)}\r\n\r\n"
    with (
        serving(host_app(router, client_stall_seconds=0.2)) as url,
        socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as line,
    ):
        line.sendall(head.encode() + raw)
        assert seen(lambda: bool(router.leases))
        lease = router.leases[0]
        assert lease.released.wait(WAIT_SECONDS)
        assert lease.streams[0].cancelled.is_set()
