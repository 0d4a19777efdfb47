"""How an app's own code gets at the router beside it, with its type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from starlette.requests import HTTPConnection

from llm_router_mw.api.added_routes import SCOPE_KEY
from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.protocols import RouterContract
from llm_router_mw.router import SyncRouter
from llm_router_mw.wsgi import ENVIRON_KEY


class HasScope(Protocol):
    """A request or a websocket of an ASGI framework."""

    @property
    def scope(self) -> Mapping[str, Any]:
        """The connection's scope."""
        ...


class HasState(Protocol):
    """An application with a state, as those of Starlette, FastAPI and Litestar are."""

    @property
    def state(self) -> Any:
        """Where a lifespan puts what the app's code needs."""
        ...


class HasEnviron(Protocol):
    """A request of a WSGI framework."""

    @property
    def environ(self) -> Mapping[str, Any]:
        """The request's environment."""
        ...


if TYPE_CHECKING:
    Connection = HasScope | HasState | Mapping[str, Any]
else:
    # FastAPI goes by the annotation to know what a dependency is to be given.
    Connection = HTTPConnection


def get_router(connection: Connection) -> RouterContract:
    """Return the router beside an ASGI app, given a request, a websocket, a scope or the app.

    It is found whether it came by middleware or by a lifespan. ``Depends(get_router)`` is all that
    FastAPI needs.

    Raises:
        RouterNotRunningError: there is none; the message says how to have one.
    """
    for place in _places(getattr(connection, "scope", connection)):
        if place is not None:
            return cast("RouterContract", place)
    raise RouterNotRunningError(
        "this app has no router: add LLMRouterMiddleware to it, or give it "
        "lifespan=llm_lifespan(...) or that of its LLMRouterApp; if it has such a lifespan, it was "
        "not run: the server must run it, or the test client must be entered with 'with'"
    )


def get_sync_router(environ: HasEnviron | Mapping[str, Any]) -> SyncRouter:
    """Return the blocking facade beside a WSGI app, given a request or its environment.

    Raises:
        RouterNotRunningError: there is none; the message says how to have one.
    """
    found: Any = getattr(environ, "environ", environ)
    if not isinstance(found, Mapping) or ENVIRON_KEY not in found:
        raise RouterNotRunningError(
            "this app has no router: wrap it in LLMRouterWSGIMiddleware; "
            "in an ASGI app call get_router(request)"
        )
    return cast("SyncRouter", found[ENVIRON_KEY])


def _places(source: Any) -> Iterator[object]:
    """Yield what is found where doors and lifespans put a router, the nearest first."""
    if isinstance(source, Mapping):
        yield source.get(SCOPE_KEY)
        yield source.get("state", {}).get(SCOPE_KEY)
        source = source.get("app")
    yield getattr(getattr(source, "state", None), SCOPE_KEY, None)
