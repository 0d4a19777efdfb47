"""Starts and stops the servers that are compared."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import httpx

from benchmarks.answer import Answer, read_answers
from benchmarks.load import Request, exchange
from benchmarks.models.copies import copies
from benchmarks.outcome import OURS, OURS_SPLIT
from benchmarks.settings import Settings

_START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 20.0
_UNLOAD_SECONDS: Final = 60.0
_LOG_CHARACTERS: Final = 2000
WARM_UP_WORDS: Final = " baba bebe"


class ServerError(Exception):
    """Raised when a server does not start; the message ends with what it printed."""


class Server:
    """A server process that listens on a port of its own, warmed up."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, settings: Settings, file: Path
    ) -> None:
        """Start *command*, which serves on *port*, and wait until it has answered a request.

        It serves *file*, or copies of it.

        Raises:
            ServerError: it does not.
        """
        self.name = name
        self.file = file
        self._port = port
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        try:
            self._wait_until_healthy()
            self.models = self._model_names()
            self.model = self.models[0]
            for model in self.models:
                self._warm_up(model, settings)
        except BaseException:
            self.stop()
            raise

    def send(self, requests: list[Request], *, one_at_a_time: bool = False) -> list[Answer]:
        """Send *requests* and return their answers.

        With *one_at_a_time* each is held back until those that came before it are answered.

        Raises:
            RefusedError: one is an error.
        """
        return read_answers(exchange(self._port, requests, one_at_a_time=one_at_a_time))

    def unload_all(self) -> None:
        """Have none of the models loaded that the server chooses from.

        Raises:
            ServerError: one does not go.
        """
        for model in self._loaded():
            httpx.post(f"{self._url}/models/unload", json={"model": model}).raise_for_status()
        deadline = time.monotonic() + _UNLOAD_SECONDS
        while self._loaded():
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} did not unload its models")
            time.sleep(0.05)

    def _loaded(self) -> list[str]:
        models = httpx.get(f"{self._url}/models").json()["data"]
        return [each["id"] for each in models if each["status"]["value"] != "unloaded"]

    def printed(self) -> bytes:
        """Return all that the process has printed so far."""
        # Read where it stands: the process writes on with the same file position.
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)

    @property
    def pid(self) -> int:
        """The server's own process."""
        return self._process.pid

    def is_asleep(self) -> bool:
        """Tell whether the model sleeps; that neither wakes it nor keeps it awake."""
        props = httpx.get(f"{self._url}/props", params={"model": self.model})
        return bool(props.json().get("is_sleeping"))

    def stop(self) -> None:
        """End the process. Idempotent."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.printed().decode(errors="replace")[-_LOG_CHARACTERS:]
                raise ServerError(f"{self.name} did not start:\n{said}")
            time.sleep(0.1)

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self._url}/health").is_success
        except httpx.TransportError:
            return False

    def _model_names(self) -> list[str]:
        return sorted(each["id"] for each in httpx.get(f"{self._url}/v1/models").json()["data"])

    def _warm_up(self, model: str, settings: Settings) -> None:
        path, body = (
            "/v1/chat/completions",
            {
                "messages": [{"role": "user", "content": WARM_UP_WORDS}],
                "max_tokens": 4,
            },
        )
        if settings.pooling:
            path, body = "/v1/embeddings", {"input": WARM_UP_WORDS}
        self.send([Request(path, json.dumps({"model": model, **body}).encode())])

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"


class Side:
    """One of those that are compared: knows how to start its server."""

    is_ours = True

    def __init__(self, n_threads: int, *, unified: bool = True) -> None:
        """Use *n_threads* for computing; *unified* lets all requests share the whole context."""
        self._n_threads = n_threads
        self.unified = unified
        self.name = OURS if unified else OURS_SPLIT

    def start(self, model: Path, settings: Settings) -> Server:
        """Start a server for the file *model*.

        Raises:
            ServerError: it does not start.
        """
        port = free_port()
        return Server(self.name, self.command(model, settings, port), port, settings, model)

    def command(self, model: Path, settings: Settings, port: int) -> list[str]:
        """Return the command that serves on *port*."""
        if settings.pooling:
            start = ["-m", "benchmarks.serve_ours", "--pooling", settings.pooling]
        else:
            layout = "--kv-unified" if self.unified else "--no-kv-unified"
            level = ["--sleep-level", settings.sleep_level]
            start = ["-m", "llm_router_mw.cli", "serve", layout, *level]
        return [sys.executable, *start, *self._options(model, settings, port)]

    def _options(self, model: Path, settings: Settings, port: int) -> list[str]:
        """Return the flags that both sides have."""
        given: dict[str, object] = {
            "--model": model,
            "--port": port,
            "--ctx-size": settings.n_ctx,
            "--parallel": settings.n_parallel,
            "--threads": self._n_threads,
        }
        if settings.n_models > 1:
            del given["--model"]
            given |= {"--models-dir": copies(model, settings.n_models), "--models-max": 1}
        if settings.sleep_idle_seconds >= 0:
            given["--sleep-idle-seconds"] = settings.sleep_idle_seconds
        return [str(item) for pair in given.items() for item in pair]


class PeerSide(Side):
    """llama-server, with one of its two layouts of the context's memory."""

    is_ours = False

    def __init__(self, n_threads: int, binary: Path, *, unified: bool) -> None:
        """Run *binary*."""
        super().__init__(n_threads, unified=unified)
        self.name = "unified" if unified else "split"
        self._binary = binary

    def command(self, model: Path, settings: Settings, port: int) -> list[str]:
        """Return the command that serves on *port*."""
        layout = "--kv-unified" if self.unified else "--no-kv-unified"
        more = ["--host", "127.0.0.1", "--no-webui", layout]
        if settings.pooling:
            more += ["--embeddings", "--pooling", settings.pooling]
        return [str(self._binary), *self._options(model, settings, port), *more]


def free_port() -> int:
    """Return a local port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
