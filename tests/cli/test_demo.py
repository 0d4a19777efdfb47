"""``demo`` as a real process: the app's own pages, the models behind it, a polite end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from llm_router_mw.cli.demo import guidance
from llm_router_mw.cli.demo_app import demo_models as shipped_models
from tests.support.answers import ask, client, model_ids
from tests.support.processes import ServerProcess, free_port, server_process


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def demo(port: int, tmp_path: Path) -> Iterator[ServerProcess]:
    command = [sys.executable, "-m", "llm_router_mw.cli", "demo", "--port", str(port)]
    with server_process(command, tmp_path) as process:
        process.wait_for_text("Ctrl-C stops.")
        yield process


@pytest.fixture
def http(demo: ServerProcess, port: int) -> Iterator[httpx.Client]:
    with client(f"http://127.0.0.1:{port}") as connected:
        yield connected


def test_two_models_ship_with_the_package() -> None:
    assert set(shipped_models()) == {"guide", "companion"}


def test_it_prints_what_to_try(demo: ServerProcess, port: int) -> None:
    assert demo.stdout.strip() == guidance(f"http://127.0.0.1:{port}").strip()


def test_the_apps_own_pages_are_its_own(http: httpx.Client) -> None:
    assert "/ask" in http.get("/").text
    assert http.get("/hello").text == "Hello from the app itself.\n"
    assert http.get("/health").status_code == 404


def test_the_app_asks_a_model_without_http(http: httpx.Client) -> None:
    reply = http.get("/ask", params={"q": "How do I mount the router?"})
    assert "add_middleware" in reply.json()["answer"]


def test_the_app_tells_what_the_router_refuses(http: httpx.Client) -> None:
    reply = http.get("/ask", params={"q": "Why? " * 3000})
    assert reply.status_code == 400
    assert "context" in reply.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_politely_and_leaves_nothing_behind(
    demo: ServerProcess, http: httpx.Client, number: signal.Signals
) -> None:
    assert model_ids(http) == {"guide", "companion"}
    assert ask(http, "companion")
    assert demo.workers()
    assert demo.stop(number) == 0
    assert "Traceback" not in demo.stderr
