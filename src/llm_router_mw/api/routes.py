"""Which paths are ours, who may use them, and what answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Scope

from llm_router_mw.api import admin, embeddings, models, openai, props, rerank
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.settings import APISettings
from llm_router_mw.errors import MethodNotAllowedError, PathNotFoundError
from llm_router_mw.protocols import Access, RouterContract

Handler = Callable[[Connection, RouterContract, APISettings], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """A path: its handler for each method, and who may use it."""

    access: Access
    handlers: dict[str, Handler]

    @property
    def allow(self) -> str:
        """Value of the ``Allow`` header."""
        return ", ".join([*self.handlers, "OPTIONS"])

    def handler(self, method: str) -> Handler:
        """Return what answers *method*.

        Raises:
            MethodNotAllowedError: nothing does.
        """
        if method not in self.handlers:
            raise MethodNotAllowedError(
                f"this path does not take {method}; it takes {self.allow}", allow=self.allow
            )
        return self.handlers[method]


class RouteTable:
    """The paths that the settings ask for. With inference, all of ``{prefix}/v1/`` is ours."""

    def __init__(self, settings: APISettings) -> None:
        prefix = settings.prefix
        paths: dict[str, Route] = {}
        self._space: str | None = None
        if "inference" in settings.routes:
            self._space = f"{prefix}/v1"
            paths |= _INFERENCE
        if "management" in settings.routes:
            paths |= _MANAGEMENT
        # Some frameworks (Litestar) end every path with a slash that they hand to a mount.
        self._routes = {
            prefix + path + end: route for path, route in paths.items() for end in ("", "/")
        }

    def claims(self, path: str) -> bool:
        """Say whether *path* is ours."""
        space = self._space
        if space is not None and path.startswith(space):
            return len(path) == len(space) or path[len(space)] == "/"
        return path in self._routes

    def knows(self, path: str) -> bool:
        """Say whether there is a route of *path*; with inference, more than these are ours."""
        return path in self._routes

    def match(self, path: str) -> Route:
        """Return the route of *path*.

        Raises:
            PathNotFoundError: there is none.
        """
        if path not in self._routes:
            raise PathNotFoundError(f"nothing is served at {path!r}; check the path")
        return self._routes[path]


def route_path(scope: Scope) -> str:
    """Return the path below the application's mount point.

    Servers and frameworks disagree whether ``path`` includes ``root_path``; both are understood.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        return path[len(root) :]
    return path


def _get(access: Access, handler: Handler) -> Route:
    return Route(access, {"GET": handler, "HEAD": handler})


def _post(access: Access, handler: Handler) -> Route:
    return Route(access, {"POST": handler})


_INFERENCE = {
    "/v1/models": _get("inference", models.list_models),
    "/v1/chat/completions": _post("inference", openai.chat_completions),
    "/v1/completions": _post("inference", openai.completions),
    "/v1/embeddings": _post("inference", embeddings.embeddings),
    "/v1/rerank": _post("inference", rerank.rerank),
    "/v1/reranking": _post("inference", rerank.rerank),
}
_MANAGEMENT = {
    # What is for managers alone is left out for others.
    "/props": _get("inference", props.props),
    "/slots": _get("inference", props.slots),
    "/health": _get("public", admin.health),
    "/v1/health": _get("public", admin.health),
    "/models": _get("management", models.list_models_detailed),
    "/models/load": _post("management", admin.load),
    "/models/unload": _post("management", admin.unload),
    "/models/sleep": _post("management", admin.sleep),
    "/models/wake": _post("management", admin.wake),
    "/models/cache": _get("management", admin.list_cache),
    "/models/cache/purge": _post("management", admin.purge_cache),
    # No HEAD: its answer has no end.
    "/models/sse": Route("management", {"GET": admin.stream_events}),
}
