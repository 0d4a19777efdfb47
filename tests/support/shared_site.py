"""Folders with an app in them, the web servers that serve it, and the hosts that these share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from llm_router_mw.shared.address import address_of
from llm_router_mw.shared.host_log import last_lines
from tests.support.answers import client
from tests.support.processes import ServerProcess, descendants, free_port, server_process, until

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
GRACE_SECONDS = 0.5
END_SECONDS = 15.0
ASKED_AT_ONCE = 8
_HOST, _WORKER = "llm_router_mw.shared", "llm_router_mw.worker"


class Site:
    """A folder with an app: web servers that serve it share one host.

    *options* are those of the router in the app.
    """

    def __init__(self, folder: Path, *, door: str = "asgi", **options: Any) -> None:
        self.folder = folder
        self._door = door
        # Two cores are shared by the tests' processes. No spare worker: it would be counted.
        usual: dict[str, Any] = {"n_threads": 1, "n_ctx": 1024, "spare_worker": False}
        usual |= {"stop_timeout_seconds": 5.0, "shared_grace_seconds": GRACE_SECONDS}
        self._options = usual | options
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the app anew, with other options."""
        arguments = {**self._options, **changes}
        text = f"from tests.support.shared_web import {self._door}_app\n"
        text += f"app = {self._door}_app(**{arguments!r})\n"
        # In one step: somebody who reloads it must not find half of it.
        draft = self.folder / "app.draft"
        draft.write_text(text)
        draft.replace(self.folder / "app.py")

    @contextmanager
    def serving(self, command: str, name: str = "server") -> Iterator[WebServer]:
        """Serve the app by *command*, with its port for ``{port}``, and wait until it answers."""
        with self.started(command, name) as web:
            web.process.wait_for_answer(f"{web.url}/about")
            yield web

    @contextmanager
    def started(self, command: str, name: str = "server") -> Iterator[WebServer]:
        """Run *command*, which may as well fail."""
        output = self.folder / name
        output.mkdir()
        url = f"http://127.0.0.1:{(port := free_port())}"
        program, *arguments = command.format(port=port).split()
        env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(self.folder)])}
        with server_process(
            [str(SCRIPTS / program), *arguments], output, env=env, cwd=self.folder
        ) as process:
            yield WebServer(process, url)

    def hosts(self) -> list[int]:
        """Return the processes that serve this folder's web servers."""
        return hosts_in(self.folder)

    def host(self) -> int:
        """Return the only host there is."""
        [host] = self.hosts()
        return host

    def model_workers(self) -> list[int]:
        """Return the processes of all models that are loaded by any host."""
        workers = _processes(_WORKER)
        return [pid for host in self.hosts() for pid in descendants(host) if pid in workers]

    def worker_of(self, model: str) -> int:
        """Return the process that has *model* loaded."""
        [worker] = [pid for pid in self.model_workers() if f"/{model}.gguf" in mapped(pid)]
        return worker

    def wait_for_the_end(self) -> None:
        """Return when the hosts have ended, as they do when nobody is connected any more."""
        until(lambda: not self.hosts(), "the end of the host", END_SECONDS)

    def stop_hosts(self) -> None:
        """Ask the hosts to end, for tests in which their grace time is long."""
        for host in self.hosts():
            os.kill(host, signal.SIGTERM)
        self.wait_for_the_end()

    def log(self) -> str:
        """Return what the last host has logged."""
        address = address_of(self._options.get("shared_name", ""), str(self.folder))
        return last_lines(address.log)

    def kill_all(self) -> None:
        """Leave no process behind, whatever a test did to it."""
        for host in self.hosts():
            for pid in [host, *descendants(host)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@contextmanager
def site(folder: Path, **options: Any) -> Iterator[Site]:
    """A site that leaves nothing behind; its hosts have to end by themselves."""
    made = Site(folder, **options)
    try:
        yield made
        made.wait_for_the_end()
    except BaseException:
        print(made.log())  # shown with the failure
        raise
    finally:
        made.kill_all()


class WebServer:
    """A web server, perhaps of several processes, that serves the app of a site."""

    def __init__(self, process: ServerProcess, url: str) -> None:
        self.process = process
        self.url = url

    def about(self) -> dict[str, Any]:
        """Return what one of the web processes says of itself and of the models."""
        with client(self.url) as http:
            return _json(http, "/about")

    def version(self) -> str:
        """Return the version of the app that answers now; nothing while none does."""
        try:
            version: str = self.about()["version"]
        except httpx.TransportError:
            return ""
        return version

    def said_by_each(self, n_processes: int, model: str, tokens: int) -> dict[int, list[str]]:
        """Return what *model* says through each of so many processes, asked at the same time."""
        said: dict[int, list[str]] = {}

        def ask(_: int) -> dict[str, Any]:
            with client(self.url) as http:  # its own connection: any process may take it
                return _json(http, f"/say/{model}?tokens={tokens}")

        def all_have_spoken() -> bool:
            for answer in pool.map(ask, range(ASKED_AT_ONCE)):
                said.setdefault(answer["pid"], []).append(answer["text"])
            return len(said) >= n_processes

        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            until(all_have_spoken, f"answers from {n_processes} web processes")
        return said

    @contextmanager
    def clients_of_each(self, n_processes: int) -> Iterator[list[WebClient]]:
        """Yield a client for each of so many web processes, which it keeps to."""
        with ExitStack() as stack:
            found: dict[int, list[httpx.Client]] = {}

            def all_are_found() -> bool:
                http = stack.enter_context(client(self.url))
                found.setdefault(_json(http, "/about")["pid"], []).append(http)
                return sum(len(each) > 1 for each in found.values()) >= n_processes

            until(all_are_found, f"connections to {n_processes} web processes")
            clients = [WebClient(pid, *each[:2]) for pid, each in found.items() if len(each) > 1]
            yield clients[:n_processes]


class WebClient:
    """A client of one web process, whose server must keep connections open."""

    def __init__(self, pid: int, http: httpx.Client, watching: httpx.Client) -> None:
        self.pid = pid
        self.http = http
        """Its one connection leads to the process; a second request at the same time would not."""
        self._watching = watching

    def sees(self, model: str) -> dict[str, Any]:
        """Return status, leases and waiting requests of *model*, as the process sees them."""
        answer = _json(self._watching, "/about")
        assert answer["pid"] == self.pid
        seen: dict[str, Any] = answer["models"][model]
        return seen

    def until_it_sees(self, model: str, **wanted: Any) -> None:
        """Return when status, leases or waiting requests of *model* are as wanted."""
        until(lambda: self.sees(model).items() >= wanted.items(), f"{model} with {wanted}")


def hosts_in(folder: Path) -> list[int]:
    """Return the hosts of these tests whose web servers were started in *folder*."""
    return [pid for pid in _processes(_HOST) if _works_in(pid, folder) and _meets_here(pid)]


def mapped(pid: int) -> str:
    """Return which files a process has mapped; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Tell whether the process has not ended."""
    return bool(_command(pid))


def _json(http: httpx.Client, path: str) -> dict[str, Any]:
    response = http.get(path)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def _processes(module: str) -> list[int]:
    """Return the processes that run *module*."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if module in _command(pid)]


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == folder.resolve()
    except OSError:
        return False


def _meets_here(pid: int) -> bool:
    """Tell whether the process meets others in the tests' own directory."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return os.fsencode(f"XDG_RUNTIME_DIR={os.environ['XDG_RUNTIME_DIR']}") in environ.split(b"\0")
