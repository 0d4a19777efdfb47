"""Who may use a route: API keys, compared in constant time."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest

from starlette.types import Scope

from llm_router_mw.api.settings import APISettings
from llm_router_mw.errors import AuthenticationError
from llm_router_mw.protocols import Access

_BEARER = b"bearer "


def check_access(scope: Scope, access: Access, settings: APISettings) -> None:
    """Let the request of *scope* pass, or refuse it.

    Raises:
        AuthenticationError: the key is missing or wrong.
    """
    if access == "public":
        return
    if access == "inference":
        if not settings.api_keys or _holds_key(scope, settings.api_keys + settings.admin_keys):
            return
        keyword = "an API key"
    else:
        if may_manage(scope, settings):
            return
        keyword = "the admin key"
    raise AuthenticationError(
        f"this path needs {keyword}: send it as 'Authorization: Bearer <key>' or 'X-Api-Key: <key>'"
    )


def may_manage(scope: Scope, settings: APISettings) -> bool:
    """Say whether the request of *scope* may do what concerns others too."""
    if settings.authorize is not None and settings.authorize(scope):
        return True
    return _holds_key(scope, settings.admin_keys)


def cache_namespace(scope: Scope, settings: APISettings) -> str:
    """Return a name for those whose prompts may share computed tokens: the users of one key.

    Empty where there are no keys, and for who comes with none to a path that is open to all.
    Whoever could share them with others could find out, by the time it takes, what they asked.
    """
    if not settings.api_keys:
        return ""
    # Of a key that is right: who sends a wrong one beside it must not become somebody else by that.
    held = _held_keys(scope, settings.api_keys + settings.admin_keys)
    return sha256(held[0].encode()).hexdigest() if held else ""


def _holds_key(scope: Scope, keys: Sequence[str]) -> bool:
    return bool(_held_keys(scope, keys))


def _held_keys(scope: Scope, keys: Sequence[str]) -> list[str]:
    """Return those of *keys* that the request of *scope* came with."""
    given = _given_keys(scope)
    # Every pair is compared, so that the time tells nothing about which one matched.
    found = [[compare_digest(each, key.encode()) for each in given] for key in keys]
    return [key for key, matches in zip(keys, found, strict=True) if any(matches)]


def _given_keys(scope: Scope) -> list[bytes]:
    return [
        value[len(_BEARER) :].strip() if name == b"authorization" else value
        for name, value in scope["headers"]
        if name == b"x-api-key"
        or (name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER)
    ]
