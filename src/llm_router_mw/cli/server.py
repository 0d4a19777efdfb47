"""Runs an app under uvicorn for a command: one socket, one-line failures, a polite end."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import anyio
import click
import uvicorn
from starlette.types import ASGIApp

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.protocols import StartableRouter

logger = logging.getLogger("llm_router_mw.cli")

FORCED_EXIT_CODE = 130
"""Of a process that was interrupted a second time, as shells count SIGINT."""


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet; port 0 takes a free one.

    Raises:
        click.ClickException: the address is taken, forbidden or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            # A port whose last connections are still closing is free for us.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on {host} port {port} ({error.strerror}); "
            "choose another with --host and --port"
        ) from error
    return bound


def base_url(bound: socket.socket) -> str:
    """Return the URL under which *bound* is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    app: ASGIApp,
    router: StartableRouter,
    bound: socket.socket,
    *,
    on_ready: Callable[[], None],
    stream_seconds: int,
) -> NoReturn:
    """Serve *app* and run its *router* until SIGINT or SIGTERM, then exit.

    *on_ready* is called once requests are taken. At the end, running answers have
    *stream_seconds* to finish before they are cut off.

    Raises:
        click.ClickException: the router did not start.
    """
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=stream_seconds)
    server = _Server(config, on_ready)
    try:
        anyio.run(_serve, server, router, bound)
    except LLMRouterError as error:
        raise click.ClickException(error.message) from error
    logger.info("stopped")
    sys.exit(FORCED_EXIT_CODE if server.force_exit else 0)


async def _serve(server: uvicorn.Server, router: StartableRouter, bound: socket.socket) -> None:
    # The router is entered here and not by the app's lifespan, where uvicorn would log the
    # reason of a failed start as a traceback.
    async with router:
        # uvicorn stops politely and then raises the signal again under the handler that it found.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _ignore)
        await server.serve(sockets=[bound])


def _ignore(number: int, frame: object) -> None:
    """Do nothing: the server has already done what the signal asked for."""


class _Server(uvicorn.Server):
    """A server that says when it takes requests."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()
