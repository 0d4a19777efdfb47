"""Routes that plugins add to ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from starlette.routing import BaseRoute, Match
from starlette.types import Message, Scope, Send

from llm_router_mw.api.auth import cache_namespace, may_manage
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.routes import route_path
from llm_router_mw.api.settings import APISettings
from llm_router_mw.errors import MethodNotAllowedError
from llm_router_mw.protocols import Access, RouteGroup, RouterContract

SCOPE_KEY = "llm_router"
OWNER_KEY = "llm_router_owner"
MANAGER_KEY = "llm_router_manager"


class AddedRoute(NamedTuple):
    """A route of a plugin that a request is for."""

    route: BaseRoute
    scope: Scope
    """What the route is called with."""
    access: Access
    takes_method: bool


class AddedRoutes:
    """The routes of *groups*, below the door's prefix."""

    def __init__(self, groups: Iterable[RouteGroup], prefix: str) -> None:
        self._routes = [(route, group.access) for group in groups for route in group.routes]
        self._prefix = prefix

    def find(self, scope: Scope) -> AddedRoute | None:
        """Return the route for the request of *scope*, None if there is none."""
        if not self._routes:
            return None
        below = scope
        if self._prefix:
            path, root = route_path(scope), scope.get("root_path", "")
            if not path.startswith(f"{self._prefix}/"):
                return None
            below = {**scope, "path": root + path, "root_path": root + self._prefix}
        found: AddedRoute | None = None
        for route, access in self._routes:
            match, more = route.matches(below)
            if match is Match.FULL:
                return AddedRoute(route, {**below, **more}, access, takes_method=True)
            if match is Match.PARTIAL and found is None:
                found = AddedRoute(route, {**below, **more}, access, takes_method=False)
        return found


async def serve(
    added: AddedRoute,
    connection: Connection,
    router: RouterContract,
    settings: APISettings,
    send: Send,
) -> None:
    """Let *added* answer, with the router and the owner of the request in its scope.

    Raises:
        MethodNotAllowedError: the path is known, the method is not.
        RequestTooLargeError: the body is over the limit.
        LLMRouterError: the endpoint raised it.
    """
    scope = added.scope
    if not added.takes_method:
        allow = ", ".join(sorted(getattr(added.route, "methods", None) or ()))
        raise MethodNotAllowedError(
            f"this path does not take {scope['method']}; it takes {allow}", allow=allow
        )
    scope[SCOPE_KEY] = router
    scope[OWNER_KEY] = cache_namespace(scope, settings)
    scope[MANAGER_KEY] = may_manage(scope, settings)

    async def tell(message: Message) -> None:
        connection.started = True
        await send(message)

    await added.route.handle(scope, connection.bounded(settings.max_body_bytes), tell)
