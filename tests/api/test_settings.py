from __future__ import annotations

from typing import Any

import pytest

from llm_router_mw.api import api_settings
from llm_router_mw.errors import ConfigError


def test_the_defaults_serve_inference_only_and_openly() -> None:
    settings = api_settings()
    assert settings.routes == {"inference"}
    assert settings.api_keys == ()
    assert settings.max_body_bytes == 32 * 1024 * 1024


def test_a_lone_string_is_one_key_and_one_route_group() -> None:
    settings = api_settings(api_keys="secret", routes="inference")
    assert settings.api_keys == ("secret",)
    assert settings.routes == {"inference"}


def test_a_trailing_slash_of_the_prefix_does_not_matter() -> None:
    assert api_settings(prefix="/llm/").prefix == "/llm"
    assert api_settings(prefix="/").prefix == ""


@pytest.mark.parametrize("protection", [{"admin_keys": ["k"]}, {"authorize": lambda scope: True}])
def test_management_may_be_protected_by_a_key_or_a_callable(protection: dict[str, Any]) -> None:
    assert "management" in api_settings(routes=["management"], **protection).routes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"routes": ["management"]}, "admin_keys or an authorize"),
        ({"routes": ["inference", "metrics"]}, "'metrics'; known are inference, management"),
        ({"prefix": "llm"}, "begin with '/'"),
        ({"prefix": 7}, "begin with '/'"),
        ({"api_keys": [""]}, "api_keys must hold non-empty strings"),
        ({"admin_keys": [b"k"]}, "admin_keys must hold non-empty strings"),
        ({"authorize": "me"}, "authorize must be a callable"),
        ({"max_body_bytes": 0}, "max_body_bytes is 0"),
        ({"max_body_bytes": True}, "max_body_bytes is True"),
        ({"client_stall_seconds": -1}, "client_stall_seconds is -1"),
        ({"keep_alive_seconds": "15"}, "keep_alive_seconds is '15'"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        api_settings(**options)
