from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest

from llm_router_mw import LLMRouterApp, Router
from llm_router_mw.cli import server


@pytest.fixture
def restored_signals() -> Iterator[None]:
    """Give back the handlers that a run of the server leaves behind."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def test_a_free_port_is_taken_and_named() -> None:
    with server.bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert port > 0
        assert server.base_url(bound) == f"http://127.0.0.1:{port}"


def test_nobody_is_let_in_before_the_app_has_started() -> None:
    with server.bind("127.0.0.1", 0) as bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname())


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_ipv6_url_has_its_brackets() -> None:
    with server.bind("::1", 0) as bound:
        assert server.base_url(bound).startswith("http://[::1]:")


def test_a_taken_port_is_refused_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(click.ClickException, match=f"port {port}.*choose another"):
            server.bind("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(click.ClickException, match=r"cannot listen on 192\.0\.2\.1"):
        server.bind("192.0.2.1", 8080)


@pytest.mark.usefixtures("restored_signals")
def test_a_router_that_cannot_start_is_told_in_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "models"
    router = Router(models_dir=gone)

    app = LLMRouterApp(router=router)
    never = partial(pytest.fail, "it started")
    with server.bind("127.0.0.1", 0) as bound, pytest.raises(click.ClickException) as raised:
        server.run(app, router, bound, on_ready=never, stream_seconds=1)
    assert str(gone) in raised.value.message
    assert raised.value.exit_code == 1
