"""Paths that a plugin adds to those of the doors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

Access = Literal["public", "inference", "management"]
"""Who may use a path: everybody, those with an API key (where there are any), or managers."""


@runtime_checkable
class RouteGroup(Protocol):
    """Routes that a door serves if its option ``routes`` holds the group's name.

    Supplied by ``llm_router_register_routes``. The endpoints find the router in
    ``scope["llm_router"]``, in ``scope["llm_router_owner"]`` for whom the request is (a name for
    the users of its API key), and in ``scope["llm_router_manager"]`` whether they may manage. An
    error of the package that they raise is answered as usual.
    """

    name: str

    @property
    def access(self) -> Access: ...

    @property
    def routes(self) -> Sequence[BaseRoute]: ...
