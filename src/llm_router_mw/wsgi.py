"""The WSGI door: the same dialects for Flask, Django and their like.

The router runs on a thread of its own, and so do our requests; the server's thread only carries
bytes to and fro.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, wait
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from anyio.from_thread import BlockingPortal
from starlette.types import ASGIApp, Message, Scope

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.api.connection import encode_json
from llm_router_mw.api.problem import as_problem, problem_body, problem_headers
from llm_router_mw.api.settings import CLIENT_STALL_SECONDS, MAX_BODY_BYTES, Authorize
from llm_router_mw.asgi import added_routes, router_for
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.protocols import StartableRouter
from llm_router_mw.router import RouterThread, SyncRouter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ENVIRON_KEY = "llm_router"
_READ_BYTES = 64 * 1024
_CHUNKS_AHEAD = 8


class _Process(NamedTuple):
    """What one process has: after a fork the child needs its own."""

    api: RouterAPI
    thread: RouterThread
    facade: SyncRouter


class LLMRouterWSGIMiddleware:
    """Serves models beside *app*: ``app.wsgi_app = LLMRouterWSGIMiddleware(app.wsgi_app, ...)``.

    Claims the same paths as the ASGI middleware. Everything else reaches *app* untouched, with the
    router's blocking facade in ``environ["llm_router"]``. The router starts on first use, once in
    each process, so that servers may fork after the app was imported; a *router* that was started
    before the fork is refused in the child. Arguments as for ``LLMRouterMiddleware``.

    Raises:
        ConfigError: an option is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        /,
        *,
        router: StartableRouter | None = None,
        prefix: str = "",
        routes: Iterable[str] = ("inference",),
        api_keys: Iterable[str] = (),
        admin_keys: Iterable[str] = (),
        authorize: Authorize | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        client_stall_seconds: float = CLIENT_STALL_SECONDS,
        **options: Any,
    ) -> None:
        self.app = app
        self._router = router
        self._options = options
        first = self._new_router(client_stall_seconds)
        self._settings = api_settings(
            prefix=prefix,
            routes=routes,
            api_keys=api_keys,
            admin_keys=admin_keys,
            authorize=authorize,
            max_body_bytes=max_body_bytes,
            client_stall_seconds=client_stall_seconds,
            added=added_routes(first),
        )
        self._processes = {os.getpid(): self._process_of(first)}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        process = self._processes.get(os.getpid())
        if process is None:
            # setdefault is atomic: of two first requests one wins, and nothing has started yet.
            router = self._new_router(self._settings.client_stall_seconds)
            process = self._processes.setdefault(os.getpid(), self._process_of(router))
        target = _target(environ)
        if not process.api.claims(target):
            environ[ENVIRON_KEY] = process.facade
            return self.app(environ, start_response)
        try:
            process.thread.start()
            portal = process.thread.portal
        except Exception as error:
            return _refuse(as_problem(error), start_response)
        exchange = Exchange(portal, process.api, _scope(target, environ), _body(environ))
        exchange.start(start_response)
        return exchange

    def close(self) -> None:
        """Stop the router of this process; at the interpreter's end that happens by itself."""
        if (process := self._processes.get(os.getpid())) is not None:
            process.thread.stop()

    def _new_router(self, client_stall_seconds: float) -> StartableRouter:
        return router_for(self._router, client_stall_seconds, self._options)

    def _process_of(self, router: StartableRouter) -> _Process:
        thread = RouterThread(router)
        return _Process(RouterAPI(router, self._settings), thread, SyncRouter(thread))


class Exchange:
    """One request: the ASGI application on the router's loop, and the server's thread here.

    Iterating gives the body as it comes; ``close`` cancels the request if it is still running.
    Both directions go through the server's thread: it reads the request's body when the
    application asks for it, because that is where WSGI wants it to be read.
    """

    def __init__(
        self, portal: BlockingPortal, app: ASGIApp, scope: Scope, body: Iterator[bytes]
    ) -> None:
        self._portal = portal
        self._app = app
        self._scope = scope
        self._body = body
        self._body_ended = False
        # In the first stream None asks for the next piece of the request's body.
        self._put, self._get = anyio.create_memory_object_stream[Message | None](_CHUNKS_AHEAD)
        self._put_piece, self._get_piece = anyio.create_memory_object_stream[bytes](1)
        self._cancel = portal.call(anyio.CancelScope)
        self._task = portal.start_task_soon(self._run)

    def start(self, start_response: StartResponse) -> None:
        """Wait for the status line and pass it on."""
        try:
            message = self._next_message()
            if message is None:
                raise RuntimeError("the request ended without an answer")
        except BaseException:
            self.close()  # without an iterable the server has nothing to close
            raise
        start_response(_status_line(message["status"]), _texts(message["headers"]))

    def __iter__(self) -> Exchange:
        return self

    def __next__(self) -> bytes:
        while (message := self._next_message()) is not None:
            if message["body"]:
                body: bytes = message["body"]
                return body
        raise StopIteration

    def close(self) -> None:
        """End the request and wait for its end; called by the server, also when a client left."""
        # A portal that has stopped has ended its tasks.
        with suppress(RuntimeError, CancelledError):
            self._portal.call(self._cancel.cancel)
        wait([self._task])
        for stream in (self._put, self._get, self._put_piece, self._get_piece):
            stream.close()

    def _next_message(self) -> Message | None:
        while True:
            try:
                message = self._portal.call(self._get.receive)
            except (anyio.EndOfStream, anyio.ClosedResourceError, CancelledError):
                return None  # cancelled: the router's thread was stopped meanwhile
            if message is not None:
                return message
            self._portal.call(self._put_piece.send, next(self._body, b""))

    async def _run(self) -> None:
        with self._cancel, self._put:
            await self._app(self._scope, self._receive, self._put.send)

    async def _receive(self) -> Message:
        if self._body_ended:
            # Only close() tells that the client has left, and it cancels us.
            await anyio.sleep_forever()
        await self._put.send(None)
        piece = await self._get_piece.receive()
        self._body_ended = not piece
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}


def _refuse(error: LLMRouterError, start_response: StartResponse) -> Iterable[bytes]:
    body = encode_json(problem_body(error))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    start_response(_status_line(error.status), _texts([*headers, *problem_headers(error)]))
    return [body]


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def _target(environ: WSGIEnvironment) -> Scope:
    """Return the part of the scope that tells whose request it is."""
    root = _text(environ.get("SCRIPT_NAME", ""))
    return {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "path": root + _text(environ.get("PATH_INFO", "")),
        "root_path": root,
    }


def _scope(target: Scope, environ: WSGIEnvironment) -> Scope:
    """Return the request as an ASGI scope."""
    host, port = environ.get("SERVER_NAME", ""), environ.get("SERVER_PORT", "")
    client = environ.get("REMOTE_ADDR")
    return {
        **target,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.1").removeprefix("HTTP/"),
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "raw_path": target["path"].encode(),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": list(_headers(environ)),
        "client": (client, int(environ.get("REMOTE_PORT") or 0)) if client else None,
        "server": (host, int(port)) if port.isdigit() else None,
    }


def _headers(environ: WSGIEnvironment) -> Iterator[tuple[bytes, bytes]]:
    for key, value in environ.items():
        name = key.removeprefix("HTTP_")
        if name != key or (key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value):
            yield name.replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")


def _body(environ: WSGIEnvironment) -> Iterator[bytes]:
    """Yield the request's body; reads only when it is asked to, and never past its end."""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH", "")
    left = int(length) if length.isdigit() else 0
    if environ.get("wsgi.input_terminated"):  # the server ends it: also a chunked one
        left = sys.maxsize
    while left > 0 and (piece := stream.read(min(left, _READ_BYTES))):
        left -= len(piece)
        yield piece


def _text(value: str) -> str:
    """Undo WSGI's habit of showing the path's bytes as Latin-1."""
    return value.encode("latin-1").decode("utf-8", "replace")
