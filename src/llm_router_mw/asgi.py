"""The ASGI doors: the router as middleware around an app, or as an app of its own to mount."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_router_mw.api import RouterAPI, api_settings
from llm_router_mw.api.added_routes import SCOPE_KEY
from llm_router_mw.api.connection import Connection, encode_json
from llm_router_mw.api.problem import problem_body
from llm_router_mw.api.settings import CLIENT_STALL_SECONDS, MAX_BODY_BYTES, Authorize
from llm_router_mw.config import parse_config
from llm_router_mw.errors import ConfigError, PathNotFoundError
from llm_router_mw.protocols import RouteGroup, RouterContract, StartableRouter
from llm_router_mw.router import OnDemandRouter, Router, RouterThread

logger = logging.getLogger("llm_router_mw.asgi")


class LLMRouterMiddleware:
    """Serves models beside *app*: ``app.add_middleware(LLMRouterMiddleware, models_dir="models")``.

    Only the paths under ``{prefix}/v1/`` are ours (and the management paths, where ``routes`` asks
    for them); everything else reaches *app* untouched, with the router in ``scope["llm_router"]``.
    The router lives as long as the server's lifespan; where none comes, it runs on a thread of its
    own from the first request on.

    Args:
        app: the application to wrap.
        router: a router to use; one that runs already is neither started nor stopped here.
        prefix: goes before every path of ours.
        routes: ``inference``, ``management`` and names of groups that plugins add.
        api_keys: keys for the inference routes; none leaves them open.
        admin_keys: keys for the management routes.
        authorize: decides by the scope who may use the management routes.
        max_body_bytes: a larger request body is refused.
        client_stall_seconds: a client that takes nothing of its stream for so long is cancelled.
        options: of the router, as for ``Router(**options)``.

    Raises:
        ConfigError: an option is wrong.
    """

    def __init__(
        self,
        app: ASGIApp,
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
        self.router = router_for(router, client_stall_seconds, options)
        self.thread = RouterThread(self.router)
        """Runs the router where no lifespan does; stops by itself at exit."""
        self._on_demand = OnDemandRouter(self.thread)
        self._lifespan_came = False
        settings = api_settings(
            prefix=prefix,
            routes=routes,
            api_keys=api_keys,
            admin_keys=admin_keys,
            authorize=authorize,
            max_body_bytes=max_body_bytes,
            client_stall_seconds=client_stall_seconds,
            added=added_routes(self.router),
        )
        self._api = RouterAPI(self.router, settings, self._ensure_running)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            self._lifespan_came = True
            await _Lifespan(self.app, self.router, scope, receive, send).run()
            return
        if self._api.claims(scope):
            await self._api(scope, receive, send)
            return
        if kind in ("http", "websocket"):
            started = self._lifespan_came or self.router.running
            scope[SCOPE_KEY] = self.router if started else self._on_demand
        await self.app(scope, receive, send)

    async def _ensure_running(self) -> None:
        if not self.router.running and not self._lifespan_came:
            await anyio.to_thread.run_sync(self.thread.start)


class LLMRouterApp(LLMRouterMiddleware):
    """The same routes as an app of its own, for ``Mount`` or to be served as it is.

    A mount gets no lifespan: give the host app ours (``Starlette(lifespan=llm.lifespan)``), or the
    router starts on a thread of its own at the first request. Options as for the middleware.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(_nothing_else, **options)

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[dict[str, RouterContract]]:
        """Run the router while the host app lives; a lifespan in Starlette's sense."""
        self._lifespan_came = True
        async with living_with(app, self.router) as state:
            yield state


class _Lifespan:
    """One lifespan: the router is up before the app starts and goes down after it has ended.

    What the app says about its start goes to the server at once if it is good news; the last word
    of a lifespan (startup.failed, shutdown.*) is held back until the router has closed.
    """

    def __init__(
        self, app: ASGIApp, router: StartableRouter, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._app = app
        self._router = router
        self._scope = scope
        self._receive = receive
        self._send = send
        self._unread: Message | None = None
        self._started = False
        self._stopping = False
        self._last_word: Message | None = None
        self._crash: Exception | None = None

    async def run(self) -> None:
        """Live the whole life. Raises what the app raised, as if we were not there."""
        self._unread = await self._receive()
        try:
            async with _running(self._router):
                if "state" in self._scope:
                    self._scope["state"][SCOPE_KEY] = self._router
                await self._live()
        except Exception as error:  # the app's own are in self._crash
            # What is wrong with an option is said in a sentence; no traceback says more.
            trace = None if isinstance(error, ConfigError) else error
            logger.error("the router could not be run: %s", error, exc_info=trace)
            phase = "shutdown" if self._started else "startup"
            self._last_word = {"type": f"lifespan.{phase}.failed", "message": str(error)}
        if self._last_word is not None:
            await self._send(self._last_word)
        if self._crash is not None:
            raise self._crash

    async def _live(self) -> None:
        try:
            await self._app(self._scope, self._receive_for_app, self._send_for_app)
        except Exception as error:
            self._crash = error
        if self._last_word is not None:
            return
        if not self._started:
            # By the specification: an app that raises (or returns) here has no lifespan.
            logger.debug("the app takes no lifespan: %r", self._crash)
            self._crash = None
            await self._send_for_app({"type": "lifespan.startup.complete"})
        elif self._crash is not None:
            logger.error("the app's lifespan ended with an error", exc_info=self._crash)
        while not self._stopping:
            await self._receive_for_app()
        if self._crash is None:
            self._last_word = {"type": "lifespan.shutdown.complete"}

    async def _receive_for_app(self) -> Message:
        message, self._unread = self._unread, None
        if message is None:
            message = await self._receive()
            self._stopping = self._stopping or message["type"] == "lifespan.shutdown"
        return message

    async def _send_for_app(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            self._started = True
            await self._send(message)
        else:
            self._last_word = message


@asynccontextmanager
async def _running(router: StartableRouter) -> AsyncIterator[None]:
    """Run *router* meanwhile, unless somebody else does already."""
    async with AsyncExitStack() as stack:
        if not router.running:
            await stack.enter_async_context(router)
        yield


@asynccontextmanager
async def living_with(
    app: Any, router: StartableRouter
) -> AsyncIterator[dict[str, RouterContract]]:
    """Run *router* while *app* lives, and yield what its lifespan state should hold.

    Where *app* has a state of its own the router is there too: not every framework passes on what
    lifespans yield.
    """
    async with _running(router):
        if hasattr(app, "state"):
            setattr(app.state, SCOPE_KEY, router)
        yield {SCOPE_KEY: router}


def router_for(
    router: StartableRouter | None, client_stall_seconds: float, options: dict[str, Any]
) -> StartableRouter:
    """Return *router*, or a new one made from *options*, which may hold ``plugins`` too.

    Raises:
        ConfigError: both were given, or an option is wrong.
        PluginError: a plugin is.
    """
    if router is None:
        given = dict(options)
        plugins = given.pop("plugins", ())
        config = parse_config(given, client_stall_seconds=client_stall_seconds)
        if config.mode == "local":
            return Router(config, plugins=plugins)
        # Only who shares a router pays for it.
        from llm_router_mw.shared.remote import RemoteRouter

        return RemoteRouter(config, plugins=plugins)
    if options:
        raise ConfigError(
            f"{', '.join(sorted(options))}: options of a router go to the one that is given"
        )
    return router


def added_routes(router: StartableRouter) -> Mapping[str, RouteGroup]:
    """Return the groups of routes that the plugins of *router* offer."""
    groups: Mapping[str, RouteGroup] = getattr(router, "route_groups", {})
    return groups


async def _nothing_else(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse what is not one of our paths; has no lifespan."""
    if scope["type"] == "http":
        error = PathNotFoundError(f"nothing is served at {scope['path']!r}; check the path")
        await Connection(scope, receive, send).respond(
            error.status, encode_json(problem_body(error))
        )
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    else:
        raise NotImplementedError(f"{scope['type']} is not served here")
