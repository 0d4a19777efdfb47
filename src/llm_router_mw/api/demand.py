"""What a request says about the model it wants: which one, how urgently, for how long."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from llm_router_mw.api.auth import cache_namespace, may_manage
from llm_router_mw.api.body import check_range
from llm_router_mw.api.connection import Connection
from llm_router_mw.api.keep_alive import FOREVER, keep_alive_seconds
from llm_router_mw.api.settings import APISettings
from llm_router_mw.errors import InvalidRequestError, PermissionDeniedError
from llm_router_mw.protocols import LeaseContract, OnQueued, RouterContract
from llm_router_mw.types import AS_USUAL, Wish

MAX_PRIORITY = 100
TIMEOUT_HEADER = "X-LLM-Router-Timeout"


class ModelRequest(Struct, frozen=True, kw_only=True):
    """Fields that a request to any model may have; null is the same as absent."""

    model: str | None = None
    keep_alive: float | str | None = None
    """How long the model stays afterwards."""
    priority: int | None = None
    """In the queue; higher goes first."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A checked wish for a lease."""

    model: str
    wish: Wish = AS_USUAL

    async def lease(self, router: RouterContract, on_queued: OnQueued) -> LeaseContract:
        """Return the lease, once the model is ready.

        Raises:
            LLMRouterError: the model cannot be had.
        """
        return await router.lease(self.model, self.wish, on_queued=on_queued)


def demand_of(request: ModelRequest, connection: Connection, settings: APISettings) -> Demand:
    """Return what *request* and its headers ask for.

    Raises:
        InvalidRequestError: a field is missing, of a wrong form or out of range.
        PermissionDeniedError: the key may not ask for that.
    """
    model = model_name(request.model)
    check_range("priority", request.priority, -MAX_PRIORITY, MAX_PRIORITY)
    priority = request.priority or 0
    keep_alive = keep_alive_seconds(request.keep_alive)
    if priority and not may_manage(connection.scope, settings):
        raise _denied("priority", "leave it out")
    if keep_alive == FOREVER and not may_manage(connection.scope, settings):
        raise _denied("keep_alive", "give a time like '5m'")
    wish = Wish(
        autoload=_autoload(connection),
        priority=priority,
        keep_alive_seconds=keep_alive,
        timeout_seconds=_timeout(connection),
        owner=cache_namespace(connection.scope, settings),
    )
    return Demand(model, wish)


def model_name(given: str | None) -> str:
    """Return the model that the request names.

    Raises:
        InvalidRequestError: it names none.
    """
    if not given:
        raise InvalidRequestError("model name is missing from the request", param="model")
    return given


def _denied(field: str, instead: str) -> PermissionDeniedError:
    what = "a priority" if field == "priority" else "keeping a model for ever"
    return PermissionDeniedError(
        f"{field}: {what} needs an admin key; send one, or {instead}", param=field
    )


def _autoload(connection: Connection) -> bool | None:
    given = connection.query("autoload")
    return None if given is None else given in ("1", "true")


def _timeout(connection: Connection) -> float | None:
    given = connection.header(TIMEOUT_HEADER)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidRequestError(
            f"the header {TIMEOUT_HEADER} is {given[:100]!r}; it must be a number of seconds above "
            "0, for which the request may wait for its model",
            param=TIMEOUT_HEADER,
        )
    return seconds
