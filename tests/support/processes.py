"""Servers as real processes, and the worker processes below them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

START_SECONDS = 30.0
STOP_SECONDS = 20.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Return once *condition* holds; fail with *what* when it does not within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


class ServerProcess:
    """A command that serves HTTP, with what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def wait_for_answer(self, url: str) -> None:
        """Return when *url* answers, whatever it says."""
        until(lambda: self._answers(url), f"an answer from {url}")

    def wait_for_text(self, text: str, seconds: float = START_SECONDS) -> None:
        """Return when the process has printed *text*."""
        until(
            lambda: text in self.stdout + self.stderr or self._has_ended(),
            f"{text!r} among the output",
            seconds,
        )
        assert text in self.stdout + self.stderr, self.stdout + self.stderr

    def workers(self) -> list[int]:
        """Return the ids of all processes below the server."""
        return descendants(self.process.pid)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code; fail if a process below is left."""
        below = self.workers()
        self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS)
        until(lambda: not any(map(_is_running, below)), f"the end of {below}", 5)
        return code

    def _answers(self, url: str) -> bool:
        assert not self._has_ended(), f"it ended:\n{self.stdout}{self.stderr}"
        try:
            httpx.get(url, timeout=2, trust_env=False)
        except httpx.TransportError:
            return False
        return True

    def _has_ended(self) -> bool:
        return self.process.poll() is not None


@contextmanager
def server_process(
    command: Sequence[str], folder: Path, *, env: Mapping[str, str] = {}, cwd: Path | None = None
) -> Iterator[ServerProcess]:
    """Run *command*, its output in *folder*; at the end it is asked to stop, or else killed."""
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env={**os.environ, **env}, cwd=cwd
        )
    try:
        yield ServerProcess(process, out, err)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    below = descendants(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:  # pragma: no cover - a server that hangs is the test's fault
        for pid in filter(_is_running, [process.pid, *below]):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below *pid*."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (status := _status(int(entry.name))) is not None:
            children.setdefault(status[1], []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def _is_running(pid: int) -> bool:
    status = _status(pid)
    return status is not None and status[0] not in "ZX"


def _status(pid: int) -> tuple[str, int] | None:
    """Return state and parent of a process, None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)
