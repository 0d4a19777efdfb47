"""What a door is told about the HTTP side, checked once when it is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.types import Scope

from llm_router_mw.errors import ConfigError
from llm_router_mw.protocols import RouteGroup

Authorize = Callable[[Scope], bool]
"""Says whether the request of that scope may use the management routes."""

ROUTE_GROUPS = frozenset({"inference", "management"})
MAX_BODY_BYTES = 32 * 1024 * 1024
CLIENT_STALL_SECONDS = 60.0
KEEP_ALIVE_SECONDS = 15.0
WAIT_PATIENCE_SECONDS = 1.0
WAIT_COMMENT_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class APISettings:
    """Checked settings; made by :func:`api_settings`."""

    prefix: str = ""
    routes: frozenset[str] = frozenset({"inference"})
    api_keys: tuple[str, ...] = ()
    """Empty leaves the inference routes open."""
    admin_keys: tuple[str, ...] = ()
    """They open the management routes, and the inference routes too."""
    authorize: Authorize | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    client_stall_seconds: float = CLIENT_STALL_SECONDS
    """A client that takes nothing of a stream for so long is cancelled."""
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    """A stream that is silent for so long sends an SSE comment."""
    wait_patience_seconds: float = WAIT_PATIENCE_SECONDS
    """A stream whose request was queued for so long begins, and tells how long it has to wait."""
    route_groups: tuple[RouteGroup, ...] = ()
    """Those of plugins that are served."""
    wait_comment_seconds: float = WAIT_COMMENT_SECONDS
    """It tells that again after so long."""


def api_settings(
    *,
    prefix: str = "",
    routes: Iterable[str] = ("inference",),
    api_keys: Iterable[str] = (),
    admin_keys: Iterable[str] = (),
    authorize: Authorize | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    client_stall_seconds: float = CLIENT_STALL_SECONDS,
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    wait_patience_seconds: float = WAIT_PATIENCE_SECONDS,
    wait_comment_seconds: float = WAIT_COMMENT_SECONDS,
    added: Mapping[str, RouteGroup] = {},
) -> APISettings:
    """Return the settings that a door's keyword arguments describe.

    *added* holds the groups of routes that plugins offer.

    Raises:
        ConfigError: an argument is wrong, or management is asked for without protection.
    """
    if ours := ROUTE_GROUPS & added.keys():
        raise ConfigError(
            f"a plugin calls its routes {min(ours)!r}, as ours are called: it must rename them"
        )
    groups = frozenset(_strings("routes", routes))
    if unknown := groups - ROUTE_GROUPS - added.keys():
        raise ConfigError(
            f"routes holds {', '.join(sorted(map(repr, unknown)))}; "
            f"known are {', '.join(sorted(ROUTE_GROUPS | added.keys()))}"
        )
    keys = _strings("admin_keys", admin_keys)
    if authorize is not None and not callable(authorize):
        raise ConfigError("authorize must be a callable that takes the ASGI scope")
    chosen = tuple(group for name, group in added.items() if name in groups)
    manages = {"management"} & {*groups, *(group.access for group in chosen)}
    if manages and not keys and authorize is None:
        raise ConfigError(
            "routes='management' lets clients load and unload models: "
            "give admin_keys or an authorize(scope) callable with it"
        )
    for name, value in (
        ("max_body_bytes", max_body_bytes),
        ("client_stall_seconds", client_stall_seconds),
        ("keep_alive_seconds", keep_alive_seconds),
        ("wait_patience_seconds", wait_patience_seconds),
        ("wait_comment_seconds", wait_comment_seconds),
    ):
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigError(f"{name} is {value!r}; it must be a number above 0")
    return APISettings(
        prefix=_prefix(prefix),
        routes=groups,
        api_keys=_strings("api_keys", api_keys),
        admin_keys=keys,
        authorize=authorize,
        max_body_bytes=int(max_body_bytes),
        client_stall_seconds=client_stall_seconds,
        keep_alive_seconds=keep_alive_seconds,
        wait_patience_seconds=wait_patience_seconds,
        wait_comment_seconds=wait_comment_seconds,
        route_groups=chosen,
    )


def _prefix(prefix: str) -> str:
    if not isinstance(prefix, str) or (prefix and not prefix.startswith("/")):
        raise ConfigError(f"prefix is {prefix!r}; it must be empty or begin with '/'")
    return prefix.rstrip("/")


def _strings(name: str, values: Iterable[str]) -> tuple[str, ...]:
    # A lone string is iterable too, and would become one key per character.
    found = (values,) if isinstance(values, str) else tuple(values)
    if not all(isinstance(value, str) and value for value in found):
        raise ConfigError(f"{name} must hold non-empty strings")
    return found
