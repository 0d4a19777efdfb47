"""Real web servers of several processes: one host, each model loaded once, also across reloads."""

from __future__ import annotations

import signal
from pathlib import Path

import anyio
import pytest

from llm_router_mw.memory.processes import process_memory
from tests.support.answers import ask, ask_streamed, client
from tests.support.processes import until
from tests.support.real_router import real_router
from tests.support.shared_site import is_running, mapped, site
from tests.support.shared_web import question

SERVERS = {
    "uvicorn": ("asgi", "uvicorn --workers 4 --port {port} app:app"),
    "gunicorn-uvicorn": (
        "asgi",
        "gunicorn -w 4 -k uvicorn.workers.UvicornWorker -b 127.0.0.1:{port} app:app",
    ),
    "gunicorn-sync": ("wsgi", "gunicorn -w 4 --preload -b 127.0.0.1:{port} app:app"),
    "gunicorn-gthread": (
        "wsgi",
        "gunicorn -w 4 -k gthread --threads 4 --preload -b 127.0.0.1:{port} app:app",
    ),
}
WEB_PROCESSES = 4
TOKENS = 40
LARGEST_WEB_PROCESS_MIB = 64
"""With the web framework and the dialects, and without llama.cpp."""


@pytest.fixture(scope="module")
def said(models_dir: Path) -> dict[str, str]:
    """What the models say when a router of the test's own asks them."""

    async def ask_both() -> dict[str, str]:
        texts = {}
        async with real_router(models_dir=models_dir, models_max=2) as router:
            for model in ("a", "b"):
                async with router.acquire(model) as lease:
                    reply = await lease.chat(question(model), max_tokens=TOKENS, temperature=0)
                texts[model] = reply.text
        return texts

    return anyio.run(ask_both)


@pytest.mark.parametrize("server", SERVERS)
def test_all_web_processes_share_one_host_and_each_model_is_loaded_once(
    server: str, models_dir: Path, tmp_path: Path, said: dict[str, str]
) -> None:
    door, command = SERVERS[server]
    with site(tmp_path, door=door, models_dir=str(models_dir), models_max=2) as shared:
        with shared.serving(command) as web:
            of_a = web.said_by_each(WEB_PROCESSES, "a", TOKENS)
            assert {text for texts in of_a.values() for text in texts} == {said["a"]}
            with client(web.url) as http:
                assert "".join(ask_streamed(http, "b", max_tokens=TOKENS)) == said["b"]
                assert ask(http, "b", max_tokens=TOKENS) == said["b"]
            assert len(shared.hosts()) == 1
            assert len(shared.model_workers()) == 2
            check_light(of_a)
            web.process.stop()
            assert "Traceback" not in web.process.stderr
        # Nobody asked it to: it ends when it has been alone for the grace time.
        shared.wait_for_the_end()


def check_light(web_processes: dict[int, list[str]]) -> None:
    """What costs memory is elsewhere: neither llama.cpp nor a model is in the web processes."""
    for pid in web_processes:
        files = mapped(pid)
        assert files
        assert "libllama" not in files
        assert ".gguf" not in files
        memory = process_memory(pid)
        assert memory is not None
        assert memory.private_bytes < LARGEST_WEB_PROCESS_MIB * 2**20


def test_a_reload_keeps_the_models_loaded(models_dir: Path, tmp_path: Path) -> None:
    # The old process is gone for a second before the new one comes.
    with site(tmp_path, models_dir=str(models_dir), shared_grace_seconds=60.0) as shared:
        shared.write(version="one")
        command = f"uvicorn --reload --reload-dir {tmp_path} --port {{port}} app:app"
        with shared.serving(command) as web, client(web.url) as http:
            before = ask(http, "a")
            host, worker = shared.host(), shared.worker_of("a")
            shared.write(version="two")
            until(lambda: web.version() == "two", "the new version of the app")
            assert ask(http, "a") == before
            assert (shared.host(), shared.worker_of("a")) == (host, worker)
        shared.stop_hosts()


def test_a_graceful_restart_of_all_web_processes_keeps_the_models_loaded(
    models_dir: Path, tmp_path: Path
) -> None:
    with site(tmp_path, models_dir=str(models_dir), shared_grace_seconds=60.0) as shared:
        command = "gunicorn -w 2 -k uvicorn.workers.UvicornWorker -b 127.0.0.1:{port} app:app"
        with shared.serving(command) as web, client(web.url) as http:
            before = web.said_by_each(2, "a", TOKENS)
            host, worker = shared.host(), shared.worker_of("a")
            web.process.process.send_signal(signal.SIGHUP)
            until(lambda: not any(map(is_running, before)), "the end of the old web processes")
            after = web.said_by_each(2, "a", TOKENS)
            assert not set(before) & set(after)
            assert (shared.host(), shared.worker_of("a")) == (host, worker)
            assert ask(http, "hello") == "Hello world"
        shared.stop_hosts()
