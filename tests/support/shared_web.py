"""What the web servers of the tests serve: pages of an app of its own beside the shared router."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llm_router_mw import LLMRouterMiddleware, LLMRouterWSGIMiddleware
from llm_router_mw.shared.link import Link
from llm_router_mw.types import ModelView
from tests.support.answers import chat_body

DOOR: dict[str, Any] = {
    "mode": "shared",
    "routes": ("inference", "management"),
    "authorize": lambda scope: True,
}


def asgi_app(
    *, version: str = "", host_stall_seconds: float | None = None, **options: Any
) -> LLMRouterMiddleware:
    """Return an app that says who it is, what it sees of the models, and what one of them says."""
    if host_stall_seconds is not None:
        impatient = partial(
            Link, host_stall_seconds=host_stall_seconds, ping_seconds=host_stall_seconds / 5
        )
        patch("llm_router_mw.shared.remote.Link", impatient).start()

    async def about(request: Request) -> JSONResponse:
        views = request.scope["llm_router"].models()
        return JSONResponse(_about(version) | {"models": {view.id: _seen(view) for view in views}})

    async def say(request: Request) -> JSONResponse:
        model, tokens = request.path_params["model"], int(request.query_params["tokens"])
        async with request.scope["llm_router"].acquire(model) as lease:
            reply = await lease.chat(question(model), max_tokens=tokens, temperature=0)
        return JSONResponse(_about(version) | {"text": reply.text})

    own = Starlette(routes=[Route("/about", about), Route("/say/{model}", say)])
    return LLMRouterMiddleware(own, **DOOR, **options)


def wsgi_app(*, version: str = "", **options: Any) -> LLMRouterWSGIMiddleware:
    """Return the same for WSGI."""

    def own(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = _about(version)
        router, path = environ["llm_router"], environ["PATH_INFO"]
        if path.startswith("/say/"):
            tokens = int(parse_qs(environ["QUERY_STRING"])["tokens"][0])
            model = path.removeprefix("/say/")
            with router.acquire(model) as lease:
                answer |= {
                    "text": lease.chat(question(model), max_tokens=tokens, temperature=0).text
                }
        else:
            answer["models"] = {view.id: _seen(view) for view in router.models()}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer).encode()]

    return LLMRouterWSGIMiddleware(own, **DOOR, **options)


def question(model: str) -> list[dict[str, Any]]:
    """Return what clients ask *model* over HTTP, too."""
    messages: list[dict[str, Any]] = chat_body(model)["messages"]
    return messages


def _about(version: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "version": version}


def _seen(view: ModelView) -> dict[str, Any]:
    return {"status": view.status, "leases": view.leases, "waiting": view.waiting}
