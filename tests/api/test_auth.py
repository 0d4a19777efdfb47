from __future__ import annotations

import pytest

from llm_router_mw.api import APISettings
from llm_router_mw.api.auth import cache_namespace, check_access, may_manage
from llm_router_mw.errors import AuthenticationError
from llm_router_mw.protocols import Access
from tests.support.asgi_driver import http_scope

KEYS = APISettings(api_keys=("user",), admin_keys=("boss",))


def allowed(settings: APISettings, access: Access, *headers: tuple[bytes, bytes]) -> bool:
    try:
        check_access(http_scope("GET", "/", headers), access, settings)
    except AuthenticationError:
        return False
    return True


@pytest.mark.parametrize(
    ("header", "may"),
    [
        ((b"authorization", b"Bearer user"), True),
        ((b"authorization", b"bearer  user"), True),
        ((b"x-api-key", b"user"), True),
        ((b"x-api-key", b"boss"), True),
        ((b"x-api-key", b"use"), False),
        ((b"authorization", b"user"), False),
        ((b"authorization", b"Basic user"), False),
        ((b"x-other", b"user"), False),
        ((b"x-api-key", b"\xff"), False),
    ],
)
def test_inference_takes_an_api_key_or_an_admin_key(header: tuple[bytes, bytes], may: bool) -> None:
    assert allowed(KEYS, "inference", header) is may


def test_inference_without_keys_is_open() -> None:
    assert allowed(APISettings(), "inference")


def test_management_takes_the_admin_key_only() -> None:
    assert allowed(KEYS, "management", (b"x-api-key", b"boss"))
    assert not allowed(KEYS, "management", (b"x-api-key", b"user"))
    assert not allowed(KEYS, "management")


def test_management_may_be_authorised_by_the_scope() -> None:
    local = APISettings(authorize=lambda scope: scope["client"][0] == "127.0.0.1")
    assert allowed(local, "management")
    assert not allowed(APISettings(authorize=lambda scope: False), "management")


def test_the_admin_key_still_counts_where_authorize_says_no() -> None:
    both = APISettings(admin_keys=("boss",), authorize=lambda scope: False)
    assert allowed(both, "management", (b"x-api-key", b"boss"))


def test_public_is_public() -> None:
    assert allowed(KEYS, "public")


def test_the_refusal_says_how_to_send_a_key() -> None:
    with pytest.raises(AuthenticationError, match="Authorization: Bearer"):
        check_access(http_scope("GET", "/"), "inference", KEYS)


def test_who_may_manage_is_known_on_every_path() -> None:
    boss = http_scope("GET", "/", [(b"x-api-key", b"boss")])
    user = http_scope("GET", "/", [(b"x-api-key", b"user")])
    assert may_manage(boss, KEYS)
    assert not may_manage(user, KEYS)
    assert not may_manage(user, APISettings())
    assert may_manage(user, APISettings(authorize=lambda scope: True))


@pytest.mark.parametrize(
    "more",
    [
        (b"x-api-key", b"anything"),
        (b"x-api-key", b"user"),
        (b"authorization", b"Bearer another"),
    ],
)
def test_nobody_becomes_somebody_else_by_a_second_key(more: tuple[bytes, bytes]) -> None:
    own = (b"authorization", b"Bearer user")
    alone = cache_namespace(http_scope("GET", "/", [own]), KEYS)
    for headers in ([own, more], [more, own]):
        assert cache_namespace(http_scope("GET", "/", headers), KEYS) == alone


def test_each_key_and_having_none_are_told_apart() -> None:
    keys = (b"user", b"boss", b"wrong")
    names = [cache_namespace(http_scope("GET", "/", [(b"x-api-key", key)]), KEYS) for key in keys]
    assert len(set(names)) == 3
    assert names[2] == cache_namespace(http_scope("GET", "/"), KEYS) == ""
