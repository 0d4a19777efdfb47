"""An app whose server sends no lifespan uses the router all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from llm_router_mw import LLMRouterMiddleware, Router
from llm_router_mw.testing import FakePlugin


async def ask(request: Request) -> PlainTextResponse:
    async with request.scope["llm_router"].acquire("a") as llm:
        reply = await llm.chat([{"role": "user", "content": "hi"}])
    return PlainTextResponse(reply.text)


@pytest.mark.parametrize("lifespan", [True, False])
def test_the_apps_own_code_may_be_first(tmp_path: Path, lifespan: bool) -> None:
    router = Router(plugins=[FakePlugin(tmp_path)], engine="fake")
    middleware = LLMRouterMiddleware(Starlette(routes=[Route("/ask", ask)]), router=router)
    client = TestClient(middleware)
    if lifespan:
        with client:
            assert client.get("/ask").text == "echo: hi"
    else:
        try:
            assert client.get("/ask").text == "echo: hi"
            assert client.get("/ask").text == "echo: hi"
        finally:
            middleware.thread.stop()
    assert not router.running
