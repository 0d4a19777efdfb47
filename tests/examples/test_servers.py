"""The example app under other servers and event loops: it answers, streams, and leaves nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.answers import ask, ask_streamed, client, model_ids
from tests.support.processes import ServerProcess, free_port, server_process, until
from tests.support.shared_site import END_SECONDS, hosts_in

ROOT = Path(__file__).parents[2]
SERVERS = {
    "hypercorn-asyncio": "hypercorn --bind 127.0.0.1:{port} uvicorn_server:app",
    "hypercorn-trio": "hypercorn -k trio --bind 127.0.0.1:{port} uvicorn_server:app",
    "granian": "granian --interface asgi --host 127.0.0.1 --port {port} uvicorn_server:app",
    "daphne": "daphne --bind 127.0.0.1 --port {port} uvicorn_server:app",
    "gunicorn-uvicorn": "gunicorn -k uvicorn.workers.UvicornWorker -b 127.0.0.1:{port} "
    "uvicorn_server:app",
    "gunicorn-sync-preload": "gunicorn --preload -w 2 -b 127.0.0.1:{port} wsgi_app:app",
    "waitress": "waitress-serve --listen=127.0.0.1:{port} wsgi_app:app",
    "hypercorn-trio-shared": "hypercorn -k trio -w 2 --bind 127.0.0.1:{port} shared_app:app",
}


@pytest.fixture(params=SERVERS)
def server(
    request: pytest.FixtureRequest, demo_models: Path, tmp_path: Path
) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    port = free_port()
    program, *arguments = SERVERS[request.param].format(port=port).split()
    command = [str(Path(sys.executable).parent / program), *arguments]
    env = {"MODELS_DIR": str(demo_models), "PYTHONPATH": str(ROOT / "examples")}
    env["GRACE_SECONDS"] = "0.5"
    url = f"http://127.0.0.1:{port}"
    with server_process(command, tmp_path, env=env, cwd=ROOT) as process, client(url) as http:
        process.wait_for_answer(f"{url}/v1/models")
        yield process, http


def test_it_serves_the_example(server: tuple[ServerProcess, httpx.Client]) -> None:
    process, http = server
    assert model_ids(http) == {"guide", "companion"}
    assert ask(http, "guide")
    assert len(ask_streamed(http, "companion")) > 1
    assert process.workers()
    process.stop()
    until(lambda: not hosts_in(ROOT), "the end of the shared host", END_SECONDS)
    assert "Traceback" not in process.stderr
