"""Routes that plugins add to ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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
    more: Mapping[str, Any]
    """What the route finds in the scope of the request, or in place of what is there."""
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
        below: Mapping[str, Any] = {}
        if self._prefix:
            path, root = route_path(scope), scope.get("root_path", "")
            if not path.startswith(f"{self._prefix}/"):
                return None
            below = {"path": root + path, "root_path": root + self._prefix}
            scope = {**scope, **below}
        found: AddedRoute | None = None
        for route, access in self._routes:
            match, more = route.matches(scope)
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
    scope = {**connection.scope, **added.more}
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
