"""The dialects as one ASGI application."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from llm_router_mw.api.added_routes import AddedRoute, AddedRoutes, serve
from llm_router_mw.api.auth import check_access
from llm_router_mw.api.connection import ClientDisconnectedError, Connection, encode_json
from llm_router_mw.api.problem import as_problem, problem_body, problem_headers
from llm_router_mw.api.routes import RouteTable, route_path
from llm_router_mw.api.settings import APISettings
from llm_router_mw.protocols import RouterContract

logger = logging.getLogger("llm_router_mw.api")

_CLAIMED = "llm_router_mw.claimed"
"""In the scope of a request between the claim and the call: the plugin's route that it is for."""


class RouterAPI:
    """Answers HTTP requests from a router. Holds no state of a request and none of a loop.

    Args:
        start: awaited before a request reaches the router; a door that has to start the router on
            first use does it there.
    """

    def __init__(
        self,
        router: RouterContract,
        settings: APISettings,
        start: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._router = router
        self._settings = settings
        self._start = start
        self._table = RouteTable(settings)
        self._added = AddedRoutes(settings.route_groups, settings.prefix)

    def claims(self, scope: Scope) -> bool:
        """Say whether the request of *scope* is for us; anything else is the wrapped app's.

        Whoever is told so calls us with this scope, or one that was made from it.
        """
        if scope["type"] != "http":
            return False
        if self._table.claims(route_path(scope)):
            return True
        added = self._added.find(scope)
        if added is not None:
            scope[_CLAIMED] = added
        return added is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = Connection(scope, receive, send)
        try:
            try:
                added = self._added_for(scope)
                if added is not None:
                    check_access(scope, added.access, self._settings)
                    await self._ensure_started()
                    await serve(added, connection, self._router, self._settings, send)
                else:
                    await self._handle(connection)
            except ClientDisconnectedError:
                raise
            except Exception as error:
                await _refuse(connection, error)
        except ClientDisconnectedError:
            logger.debug("the client left during %s %s", scope["method"], scope["path"])

    def _added_for(self, scope: Scope) -> AddedRoute | None:
        """Return the plugin's route that answers; none stands before one of ours."""
        claimed: AddedRoute | None = scope.pop(_CLAIMED, None)
        if claimed is not None or self._table.knows(route_path(scope)):
            return claimed
        return self._added.find(scope)

    async def _handle(self, connection: Connection) -> None:
        scope = connection.scope
        route = self._table.match(route_path(scope))
        if scope["method"] == "OPTIONS":
            await connection.respond(204, b"", [(b"allow", route.allow.encode())])
            return
        handler = route.handler(scope["method"])
        check_access(scope, route.access, self._settings)
        await self._ensure_started()
        await handler(connection, self._router, self._settings)

    async def _ensure_started(self) -> None:
        if self._start is not None:
            await self._start()


async def _refuse(connection: Connection, error: Exception) -> None:
    problem = as_problem(error)
    if connection.started:
        # Too late for a status: the server drops a connection whose answer is left unfinished.
        logger.warning("an answer broke off: %s", problem.message)
        return
    await connection.respond(
        problem.status, encode_json(problem_body(problem)), problem_headers(problem)
    )
