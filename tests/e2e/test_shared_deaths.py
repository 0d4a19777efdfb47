"""Who dies takes nobody along: the shared host, a web process, a model's worker, in mid-stream."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.answers import ask, chat_body, client
from tests.support.processes import until
from tests.support.shared_site import Site, WebClient, WebServer, is_running, site
from tests.support.talks import talking

COMMAND = "uvicorn --workers 2 --timeout-keep-alive 60 --port {port} app:app"
FOR_EVER = 8000
"""Tokens that take longer than any of these tests."""
LONG = 120


@pytest.fixture(scope="module")
def talkers(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of ``left`` and ``right``, which take milliseconds a token, and ``hello``."""
    folder = tmp_path_factory.mktemp("talkers")
    for name, file in {"left": "slow", "right": "slow", "hello": "hello"}.items():
        (folder / f"{name}.gguf").hardlink_to(models_dir / f"{file}.gguf")
    return folder


@pytest.fixture(scope="module")
def shared(talkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two models at a time, one request at a time each."""
    options = {"models_max": 2, "n_parallel": 1, "n_ctx": 8192}
    with site(tmp_path_factory.mktemp("shared"), models_dir=str(talkers), **options) as made:
        yield made


@pytest.fixture(scope="module")
def web(shared: Site) -> Iterator[WebServer]:
    with shared.serving(COMMAND) as server:
        yield server


class TestTheHost:
    def test_killed_ends_what_had_begun_and_nothing_else(
        self, shared: Site, web: WebServer
    ) -> None:
        with (
            web.clients_of_each(2) as (one, other),
            ThreadPoolExecutor(2) as pool,
            talking(one.http, "left", FOR_EVER) as first,
            talking(other.http, "right", FOR_EVER) as second,
            client(web.url) as third,
            client(web.url) as fourth,
        ):
            # The worker answers one at a time, so this one has begun to wait, and got nothing.
            behind = pool.submit(ask, third, "left", max_tokens=4)
            one.until_it_sees("left", leases=2)
            # There is no room for a third model while the two are busy.
            queued = pool.submit(ask, fourth, "hello")
            other.until_it_sees("hello", waiting=1)
            host, workers = shared.host(), shared.model_workers()
            assert len(workers) == 2
            os.kill(host, signal.SIGKILL)
            for error in (first.error(), second.error()):
                assert error["code"] == "host_died"
                assert "ask again" in error["message"]
            assert behind.result()
            assert queued.result() == "Hello world"
            assert shared.host() != host
            until(lambda: not any(map(is_running, workers)), "the end of the old workers")
            for survivor in (one, other):
                survivor.until_it_sees("hello", status="loaded")
                assert ask(survivor.http, "hello") == "Hello world"

    def test_asked_to_end_tells_those_who_are_reading(self, shared: Site, web: WebServer) -> None:
        with web.clients_of_each(2) as (one, other), talking(one.http, "left", FOR_EVER) as talk:
            host, workers = shared.host(), shared.model_workers()
            os.kill(host, signal.SIGTERM)
            assert talk.error()["message"]
            until(lambda: not any(map(is_running, [host, *workers])), "the end of the host")
            assert ask(other.http, "hello") == "Hello world"
            assert shared.host() != host

    def test_hung_is_replaced(self, models_dir: Path, tmp_path: Path) -> None:
        with (
            site(tmp_path, models_dir=str(models_dir), host_stall_seconds=1.5) as shared,
            shared.serving(COMMAND) as web,
            web.clients_of_each(2) as (one, other),
        ):
            ask(one.http, "hello")
            host = shared.host()
            os.kill(host, signal.SIGSTOP)
            assert ask(one.http, "hello") == "Hello world"
            assert ask(other.http, "hello") == "Hello world"
            assert shared.host() != host


class TestAClient:
    def test_that_leaves_gives_its_lease_back(self, web: WebServer) -> None:
        with web.clients_of_each(2) as (leaving, watching):
            with talking(leaving.http, "left", FOR_EVER):
                watching.until_it_sees("left", leases=1)
            watching.until_it_sees("left", leases=0, status="loaded")

    def test_that_waits_is_told_where_it_stands(self, web: WebServer) -> None:
        with (
            web.clients_of_each(2) as (one, other),
            talking(one.http, "left", FOR_EVER),
            talking(other.http, "right", FOR_EVER),
            client(web.url) as third,
        ):
            body = chat_body("hello", stream=True)
            with third.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.iter_lines()
                assert any(line.startswith(": queued, position 1") for line in lines)


class TestAWebProcess:
    def test_killed_leaves_no_lease_and_disturbs_nobody(self, shared: Site, web: WebServer) -> None:
        with web.clients_of_each(2) as (doomed, survivor):
            before = ask(survivor.http, "right", max_tokens=LONG)
            host = shared.host()
            with talking(survivor.http, "right", LONG) as undisturbed:
                with talking(doomed.http, "left", FOR_EVER) as cut_off:
                    survivor.until_it_sees("left", leases=1)
                    os.kill(doomed.pid, signal.SIGKILL)
                    with pytest.raises(httpx.TransportError):
                        cut_off.rest()
                survivor.until_it_sees("left", leases=0, status="loaded")
                check_it_can_be_unloaded(survivor, web.url)
                assert undisturbed.text() == before
            assert shared.host() == host
        # The server has put another in its place.
        assert set(web.said_by_each(2, "hello", 8)) > {survivor.pid}


def check_it_can_be_unloaded(watcher: WebClient, url: str) -> None:
    """Nobody holds ``left`` any more."""
    with client(url) as http:
        assert http.post("/models/unload", json={"model": "left"}).status_code == 200
    watcher.until_it_sees("left", status="unloaded")


class TestAWorker:
    def test_killed_ends_its_own_streams_and_comes_back(self, shared: Site, web: WebServer) -> None:
        with web.clients_of_each(2) as (one, other):
            before = ask(other.http, "right", max_tokens=LONG)
            host = shared.host()
            with (
                talking(one.http, "left", FOR_EVER) as doomed,
                talking(other.http, "right", LONG) as undisturbed,
            ):
                os.kill(shared.worker_of("left"), signal.SIGKILL)
                error = doomed.error()
                assert error["code"] == "worker_died"
                assert "SIGKILL" in error["message"]
                assert undisturbed.text() == before
            assert ask(one.http, "left", max_tokens=4)
            assert shared.host() == host
