"""A real uvicorn in a thread of the test, so that the test can look into the router behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from llm_router_mw import LLMRouterMiddleware, Router
from llm_router_mw.types import ModelView
from tests.support.answers import client
from tests.support.processes import until


@dataclass
class Served:
    """A server that runs, its router, and a client that talks to it."""

    url: str
    port: int
    router: Router
    http: httpx.Client

    def view(self, model: str) -> ModelView:
        return next(view for view in self.router.models() if view.id == model)

    def worker_pid(self, model: str) -> int:
        """Return the process id of the worker that has *model* loaded."""
        running = self.router._running
        assert running is not None
        worker = running.conductor.workers.get(self.view(model).model.instance_key)
        assert worker is not None
        assert worker.engine is not None
        assert worker.engine.pid is not None
        return worker.engine.pid

    def until(self, condition: Callable[[Served], bool], what: str, seconds: float = 20) -> None:
        until(lambda: condition(self), what, seconds)


async def _app_health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("the app's own")


@contextmanager
def served(
    *,
    door: dict[str, Any] | None = None,
    own: Sequence[BaseRoute] = (),
    send_buffer: int = 0,
    **options: Any,
) -> Iterator[Served]:
    """Serve an app of its own with the middleware around it; *options* are the router's.

    *own* are more routes of the app. A small *send_buffer* (bytes) lets the server notice soon that
    a client does not read.
    """
    # Two cores are shared by the tests' processes: OpenMP would spin on both.
    router = Router(**{"n_threads": 1, "n_ctx": 1024, "stop_timeout_seconds": 5.0, **options})
    routes = [*own, *(Route(path, _app_health) for path in ("/health", "/metrics", "/models"))]
    app = LLMRouterMiddleware(Starlette(routes=routes), router=router, **(door or {}))
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the start of uvicorn")
        port: int = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        with client(url) as http:
            yield Served(url, port, router, http)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"
