"""Servers in the network whose devices ggml is to use."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from llm_router_mw.engine import remote
from llm_router_mw.engine.remote import SERVERS, register_servers
from llm_router_mw.errors import ModelLoadError


class FakeRegistry:
    """ggml with an RPC backend, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_backend: bool = True) -> None:
        self.added: list[str] = []
        self.registered: list[int | None] = []
        self._add = remote._Add(self._take)
        address = ctypes.cast(self._add, ctypes.c_void_p).value
        functions: dict[str, Any] = {
            "ggml_backend_reg_by_name": lambda _: 1 if has_backend else None,
            "ggml_backend_reg_get_proc_address": lambda *_: address,
            "ggml_backend_register": self.registered.append,
        }
        monkeypatch.setattr(remote, "_function", lambda name, *_: functions[name])

    def _take(self, endpoint: bytes) -> int:
        self.added.append(endpoint.decode())
        return 100 + len(self.added)


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    remote._register.cache_clear()
    yield
    remote._register.cache_clear()


@pytest.fixture
def endpoint() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_each_server_is_registered_once(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    registry = FakeRegistry(monkeypatch)
    for _ in range(2):
        register_servers({SERVERS: f"{endpoint}, {endpoint},"})
    assert registry.added == [endpoint, endpoint]
    assert registry.registered == [101, 102]


def test_without_servers_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FakeRegistry(monkeypatch, has_backend=False)
    register_servers({})
    register_servers({SERVERS: " , "})
    assert not registry.added


def test_a_build_without_the_backend_says_what_to_do() -> None:
    # As the tests have it, unless it was built for them.
    if remote._function("ggml_backend_reg_by_name", ctypes.c_void_p, ctypes.c_char_p)(b"RPC"):
        return  # pragma: no cover
    with pytest.raises(ModelLoadError, match="CMAKE_ARGS=-DGGML_RPC=on"):
        register_servers({SERVERS: "127.0.0.1:1"})


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "127.0.0.1", "127.0.0.1:many"])
def test_a_server_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    registry = FakeRegistry(monkeypatch)
    with pytest.raises(ModelLoadError, match=f"{endpoint!r} of {SERVERS} cannot be reached"):
        register_servers({SERVERS: endpoint})
    assert not registry.added
