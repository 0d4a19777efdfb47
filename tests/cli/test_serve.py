"""``serve`` as a real process with real workers."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.answers import ask, ask_streamed, chat_body, client, model_ids
from tests.support.meetings import place_for_hosts
from tests.support.processes import ServerProcess, server_process, until

Serve = Callable[..., tuple[ServerProcess, httpx.Client]]
KEY = {"Authorization": "Bearer open-sesame"}
ELSEWHERE = {"Origin": "https://example.org"}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start ``serve`` with the given arguments on a free port."""
    with ExitStack() as stack:

        def start(
            *arguments: object, env: Mapping[str, str] = {}
        ) -> tuple[ServerProcess, httpx.Client]:
            command = [sys.executable, "-m", "llm_router_mw.cli", "serve", "--port", "0", "-t", "1"]
            process = stack.enter_context(
                server_process([*command, *map(str, arguments)], tmp_path, env=env)
            )
            process.wait_for_text("Ctrl-C stops")
            url = process.stderr.rpartition("serving on ")[2].partition(" ")[0]
            return process, stack.enter_context(client(url.replace("0.0.0.0", "127.0.0.1")))

        yield start


def status_of(http: httpx.Client, model: str) -> str:
    listed = {each["id"]: each for each in http.get("/v1/models").json()["data"]}
    status: str = listed[model]["status"]["value"]
    return status


def test_a_directory_is_served_with_llama_servers_routes(serve: Serve, demo_models: Path) -> None:
    process, http = serve("--models-dir", demo_models, "-c", 512, "-np", 2, "-t", 1)
    assert "models: 2" in process.stderr
    assert model_ids(http) == {"guide", "companion"}
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/models").status_code == 200
    assert http.get("/nothing/here").status_code == 404
    assert ask(http, "guide")
    assert ask_streamed(http, "guide")
    assert http.post("/models/load", json={"model": "companion"}).status_code == 200
    until(lambda: status_of(http, "companion") == "loaded", "the companion to be loaded")
    assert http.post("/models/unload", json={"model": "guide"}).status_code == 200
    until(lambda: status_of(http, "guide") == "unloaded", "the guide to be unloaded")
    assert process.workers()
    assert process.stop(signal.SIGTERM) == 0
    assert "Traceback" not in process.stderr


def test_a_page_from_elsewhere_may_ask_but_not_manage(serve: Serve, demo_models: Path) -> None:
    _, http = serve("-m", demo_models / "guide.gguf")
    refused = http.post("/models/load", json={"model": "guide"}, headers=ELSEWHERE)
    assert refused.status_code in (401, 403)
    assert model_ids(http) == {"guide"}


@pytest.mark.parametrize("way", ["option", "environment"])
def test_with_a_key_everything_but_health_needs_it(
    serve: Serve, demo_models: Path, way: str
) -> None:
    keys = "another,open-sesame"
    options = ("--api-key", keys) if way == "option" else ()
    env = {"LLAMA_API_KEY": keys} if way == "environment" else {}
    _, http = serve("-m", demo_models / "guide.gguf", *options, env=env)
    load = {"model": "guide"}
    assert http.get("/health").status_code == 200
    assert http.post("/v1/chat/completions", json=chat_body("guide")).status_code == 401
    assert http.post("/models/load", json=load).status_code == 401
    assert http.post("/models/load", json=load, headers=KEY).status_code == 200
    reply = http.post("/v1/chat/completions", json=chat_body("guide"), headers=KEY)
    assert reply.status_code == 200


def test_with_an_admin_key_other_keys_only_use_models(serve: Serve, demo_models: Path) -> None:
    keys = ("--api-key", "open-sesame", "--admin-key", "boss")
    _, http = serve("-m", demo_models / "guide.gguf", *keys)
    boss = {"X-Api-Key": "boss"}
    load = {"model": "guide"}
    assert http.post("/models/load", json=load, headers=KEY).status_code == 401
    assert http.post("/models/load", json=load, headers=boss).status_code == 200
    for headers, status in ((KEY, 403), (boss, 200)):
        body = chat_body("guide", priority=1)
        reply = http.post("/v1/chat/completions", json=body, headers=headers)
        assert reply.status_code == status
    plain = http.post("/v1/chat/completions", json=chat_body("guide"), headers=KEY)
    assert plain.status_code == 200


def test_open_to_others_without_a_key_management_is_closed(serve: Serve, demo_models: Path) -> None:
    process, http = serve("-m", demo_models / "guide.gguf", "--host", "0.0.0.0")
    [warning] = [line for line in process.stderr.splitlines() if "WARNING" in line]
    assert "--api-key" in warning
    assert http.post("/models/load", json={"model": "guide"}).status_code in (401, 403)
    assert ask(http, "guide")


def test_an_empty_directory_is_served_with_a_warning(serve: Serve, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    process, http = serve("--models-dir", empty)
    assert "no models: put *.gguf files into" in process.stderr
    assert model_ids(http) == set()
    reply = http.post("/v1/chat/completions", json=chat_body("guide"))
    assert reply.status_code == 404


def test_without_autoload_a_model_has_to_be_loaded_first(serve: Serve, demo_models: Path) -> None:
    _, http = serve("--models-dir", demo_models, "--no-models-autoload")
    reply = http.post("/v1/chat/completions", json=chat_body("guide"))
    assert reply.status_code == 400


def test_a_file_that_is_no_model_does_not_hurt_the_others(
    serve: Serve, demo_models: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"this is no model")
    _, http = serve("-m", broken, "-m", demo_models / "guide.gguf")
    reply = http.post("/v1/chat/completions", json=chat_body("broken"))
    assert 400 <= reply.status_code < 500
    assert ask(http, "guide")


def test_open_streams_do_not_outlive_the_stop_timeout(serve: Serve, demo_models: Path) -> None:
    process, http = serve("-m", demo_models / "guide.gguf", "--stop-timeout", 2)
    with http.stream("GET", "/models/sse") as events:
        assert events.status_code == 200
        began = time.monotonic()
        assert process.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 4
    assert "Traceback" not in process.stderr


def test_a_second_interrupt_forces_the_end(serve: Serve, demo_models: Path) -> None:
    process, http = serve("-m", demo_models / "guide.gguf", "--stop-timeout", 60, "-v")
    assert ask(http, "guide")
    with http.stream("GET", "/models/sse"):
        process.process.send_signal(signal.SIGINT)
        process.wait_for_text("Waiting for connections to close")
        assert process.stop(signal.SIGINT) == 130


def test_models_stay_loaded_while_a_server_that_shares_restarts(
    serve: Serve, demo_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--models-dir", demo_models, "-c", 512, "--mode", "shared")
    with place_for_hosts(monkeypatch):
        process, http = serve(*arguments)
        assert ask(http, "guide")
        assert process.stop() == 0
        _, http = serve(*arguments)
        assert status_of(http, "guide") == "loaded"
        assert ask(http, "guide")
