"""The WSGI door under real servers: when its router starts, streams, who leaves, and the end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from llm_router_mw.testing import small_model
from tests.support.answers import chat_body, client
from tests.support.processes import ServerProcess, free_port, server_process, until

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 15.0


class Setup(NamedTuple):
    """A server, and how it is asked to stop."""

    command: str
    forks: bool = True
    one_at_a_time: bool = False
    """Each of its processes serves one request at a time."""
    end: signal.Signals = signal.SIGTERM


SETUPS = {
    "gunicorn, sync, preload": Setup(
        "gunicorn --preload -w 2 -b {address} {site}:bare_site", one_at_a_time=True
    ),
    "gunicorn, gthread": Setup(
        "gunicorn -k gthread --threads 4 -w 2 -b {address} {site}:django_site"
    ),
    "waitress": Setup(
        "waitress-serve --listen={address} {site}:flask_site", forks=False, end=signal.SIGINT
    ),
}


class Site(NamedTuple):
    """A server that runs, and what has happened in its processes."""

    setup: Setup
    process: ServerProcess
    http: httpx.Client
    diary: Path

    def happened(self, event: str) -> list[int]:
        """Return the processes in which *event* has happened."""
        lines = [line.split() for line in self.diary.read_text().splitlines()]
        return [int(process) for process, what in lines if what == event]

    def held(self) -> int:
        """Have the app use two models; return the process that did."""
        process, *models = self.http.get("/held").text.split()
        assert models == ["a", "b"]
        return int(process)

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Have an answer that never ends, from its first chunk on; leave it in the end."""
        body = chat_body("a", stream=True)
        with self.http.stream("POST", "/v1/chat/completions", json=body) as response:
            assert "drip" in next(text for text in response.iter_text() if "drip" in text)
            assert self.happened("cancelled") == []
            yield


@pytest.fixture(params=SETUPS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    setup = SETUPS[request.param]
    (tmp_path / "models").mkdir()
    for name in ("a", "b"):
        small_model().write(tmp_path / "models" / f"{name}.gguf")
    diary = tmp_path / "diary"
    diary.touch()
    address = f"127.0.0.1:{free_port()}"
    words = setup.command.format(address=address, site="tests.support.dripping_site").split()
    command = [str(Path(sys.executable).parent / words[0]), *words[1:]]
    env = {"DIARY": str(diary), "MODELS_DIR": str(tmp_path / "models"), "PYTHONPATH": str(ROOT)}
    url = f"http://{address}"
    with server_process(command, tmp_path, env=env, cwd=ROOT) as process, client(url) as http:
        process.wait_for_answer(url)
        yield Site(setup, process, http, diary)


def test_the_router_lives_in_the_processes_that_use_it_and_answers_end_when_clients_leave(
    site: Site,
) -> None:
    assert site.http.get("/").text == "the app's own"
    assert site.happened("started") == [], "nobody has asked for a model yet"

    with site.streaming():
        [first] = site.happened("started")
        other = site.held()  # while the stream goes on
    until(lambda: site.happened("cancelled") == [first], "the end of the stream", WAIT_SECONDS)

    started = site.happened("started")
    assert sorted(started) == sorted({first, other}), "each process that used it has one router"
    assert (site.process.process.pid in started) is not site.setup.forks
    assert not site.setup.one_at_a_time or other != first

    site.process.stop(site.setup.end)
    assert sorted(site.happened("stopped")) == sorted(started)
    assert "Traceback" not in site.process.stderr
