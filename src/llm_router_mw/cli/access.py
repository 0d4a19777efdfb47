"""Who may manage models when ``serve`` was given no API key."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

_PROXIED = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host"})
"""Headers that a proxy adds."""


def is_loopback(host: str) -> bool:
    """Tell whether *host* (a name or an address) can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def nobody(scope: Scope) -> bool:
    """Refuse everyone: the server can be reached from outside and has no key."""
    return False


def local_programs(scope: Scope) -> bool:
    """Accept callers that address this machine as itself.

    A page from elsewhere that runs in the user's browser also connects from loopback; its
    ``Origin``, or the ``Host`` that its name was rebound to, gives it away. A reverse proxy here
    speaks for callers from anywhere.
    """
    for name, value in scope["headers"]:
        if name in _PROXIED:
            return False
        if name in (b"host", b"origin") and not _names_loopback(value.decode("latin-1")):
            return False
    return True


def _names_loopback(value: str) -> bool:
    try:
        host = urlsplit(value if "//" in value else f"//{value}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)
