from __future__ import annotations

import pytest
from starlette.types import Scope

from llm_router_mw.cli.access import is_loopback, local_programs, nobody


def scope_with(**headers: str) -> Scope:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": encoded}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_addresses_of_this_machine_only_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "", "localhost."])
def test_anything_else_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost:8080"},
        {"host": "127.0.0.1"},
        {"host": "[::1]:8080", "origin": "http://localhost:3000"},
    ],
)
def test_programs_on_this_machine_may_manage(headers: dict[str, str]) -> None:
    assert local_programs(scope_with(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8080", "origin": "https://example.org"},
        {"host": "rebound.example.org:8080"},
        {"host": "localhost:8080", "origin": "null"},
        {"host": "[::1"},
        {"host": ""},
    ],
)
def test_pages_from_elsewhere_may_not(headers: dict[str, str]) -> None:
    assert not local_programs(scope_with(**headers))


@pytest.mark.parametrize("name", ["forwarded", "via", "x-forwarded-for", "x-forwarded-host"])
def test_callers_behind_a_proxy_on_this_machine_may_not(name: str) -> None:
    assert not local_programs(scope_with(host="localhost:8080", **{name: "127.0.0.1"}))


def test_nobody_may_manage_a_server_that_is_open_to_others() -> None:
    assert not nobody(scope_with(host="localhost"))
