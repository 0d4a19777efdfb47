"""What a request of the host app's own pays for passing the middleware."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_router_mw import LLMRouterMiddleware

_SCOPE = {
    "type": "http",
    "method": "GET",
    "path": "/hello",
    "root_path": "",
    "query_string": b"",
    "headers": [],
}


@dataclass(frozen=True)
class Door:
    """One way of a request to the app, and what it takes."""

    name: str
    seconds: float
    """For each request; the least of all rounds, since others only ever add to it."""


class _Through(BaseHTTPMiddleware):
    """The usual way to write a middleware, which does nothing."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


def measure_doors(requests: int, rounds: int = 5) -> list[Door]:
    """Return what *requests* take to a bare app, through ours, and through a usual middleware."""
    apps: dict[str, ASGIApp] = {
        "bare app": _app,
        "LLMRouterMiddleware": LLMRouterMiddleware(_app, models={}),
        "BaseHTTPMiddleware": _Through(_app),
    }
    least = dict.fromkeys(apps, float("inf"))
    for _ in range(rounds):
        for name, app in apps.items():
            least[name] = min(least[name], anyio.run(_seconds, app, requests))
    return [Door(name, seconds) for name, seconds in least.items()]


async def _seconds(app: ASGIApp, requests: int) -> float:
    began = time.perf_counter()
    for _ in range(requests):
        await app(dict(_SCOPE), _receive, _send)
    return (time.perf_counter() - began) / requests


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    """Take what the app says."""
