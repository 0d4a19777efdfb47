"""One llama-server: its process, and the HTTP client that speaks with it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import anyio
import httpx
from msgspec.structs import replace

from llm_router_mw.errors import LLMRouterError, ModelLoadError
from llm_router_mw.protocols import ExitReport
from llm_router_mw.router.process import (
    WorkerProcess,
    describe_exit,
    last_line,
    worker_environment,
)
from llm_router_mw.shortage import tells_of_shortage

logger = logging.getLogger("llm_router_mw.worker")

_POLL_SECONDS = 0.05
_CONNECT_SECONDS = 10.0
_PORT_IS_TAKEN = "couldn't bind"


class PortTakenError(ModelLoadError):
    """Somebody else took the port between its choice and the start of the server."""


class Server:
    """A llama-server on a port of its own, with an API key that only we know."""

    def __init__(self, process: WorkerProcess, port: int, key: str) -> None:
        self._process = process
        self._lines = 0
        self._killed = False
        self._offence = ""
        self.report: ExitReport | None = None
        """How it ended."""
        self.gone = anyio.Event()
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            trust_env=False,  # no proxy stands between us
        )

    @classmethod
    async def spawn(
        cls, binary: str, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> Server:
        """Start one; :meth:`run` must be run then.

        Raises:
            ModelLoadError: the operating system refused.
        """
        port, key = _free_port(), token_urlsafe(32)
        # In the environment: arguments can be read by everybody on the machine.
        secret = {"LLAMA_API_KEY": key}
        # Cancelled half-way, it would leave a process behind that nobody waits for.
        with anyio.CancelScope(shield=True):
            try:
                process = await anyio.open_process(
                    [binary, *arguments, "--port", str(port)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env={**worker_environment(os.environ), **environ, **secret},
                    start_new_session=True,  # Ctrl-C in the terminal is the router's business
                )
            except OSError as error:
                raise ModelLoadError(f"{binary} could not be started: {error}") from error
        return cls(WorkerProcess(process), port, key)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self, on_gone: Callable[[Server], Awaitable[None]]) -> None:
        """Watch it until it is gone, and tell. However this ends, the process is gone too."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read_log)
                self.report = await self._process.wait()
                tasks.cancel_scope.cancel()
        except Exception:
            # Raised further, the trouble with this server would be the end of all others.
            logger.exception("llama-server %s could not be watched", self.pid)
        finally:
            with anyio.CancelScope(shield=True):
                self._process.kill()
                self.report = self.report or await self._process.wait()
                await self._process.aclose()
                await self.http.aclose()
                self.report = replace(self.report, offence=self._offence)
                await on_gone(self)
                self.gone.set()

    async def ready(self, stall_seconds: float) -> None:
        """Return when it has loaded its model.

        Raises:
            PortTakenError: it can be tried again.
            ModelLoadError: it ended, or made no progress for *stall_seconds*.
        """
        life, heard_at = self._life(), anyio.current_time()
        while not self.gone.is_set():
            if await self._is_healthy():
                return
            now, before = self._life(), life
            if now != before:
                life, heard_at = now, anyio.current_time()
            elif anyio.current_time() - heard_at > stall_seconds:
                self.kill()
                raise ModelLoadError(
                    f"loading made no progress for {stall_seconds:g} s and was given up"
                )
            with anyio.move_on_after(_POLL_SECONDS):
                await self.gone.wait()
        raise self._load_error()

    async def ask(self, path: str, body: Any = None) -> Any:
        """Return the JSON that it answers: to a POST of *body*, or to a GET.

        Raises:
            httpx.HTTPError: it does not answer, or says that something is wrong.
        """
        answer = await self.http.request("GET" if body is None else "POST", path, json=body)
        answer.raise_for_status()
        return answer.json()

    async def end(self, timeout_seconds: float) -> None:
        """Terminate it, and kill it if that takes too long; returns when it is gone."""
        with anyio.CancelScope(shield=True):  # bounded by the timeout
            self._process.terminate()
            with anyio.move_on_after(timeout_seconds):
                await self.gone.wait()
            self.kill()
            await self.gone.wait()

    def kill(self) -> None:
        """End it at once."""
        if not self._process.exited:
            self._killed = True
            self._process.kill()

    def expel(self, offence: str) -> None:
        """End it at once for what it did."""
        logger.error("llama-server %s %s and is ended", self.pid, offence)
        self._offence = offence
        self.kill()

    def _life(self) -> tuple[int, str]:
        """Return what changes while it is at work: its log, and on Linux its resident memory."""
        try:
            memory = Path(f"/proc/{self.pid}/statm").read_text()
        except OSError:
            memory = ""
        return self._lines, memory

    async def _is_healthy(self) -> bool:
        try:
            answer = await self.http.get("/health", timeout=_CONNECT_SECONDS)
        except httpx.TransportError:
            return False  # it does not listen yet, or is gone
        return answer.status_code == httpx.codes.OK

    def _load_error(self) -> LLMRouterError:
        report = self.report
        assert report is not None
        if _PORT_IS_TAKEN in report.log_tail:
            return PortTakenError("llama-server found its port taken; ask again")
        # Where memory is short, systems end processes without a word. Nobody else kills them.
        was_killed = report.exit_code == -signal.SIGKILL and not self._killed
        logger.warning(
            "llama-server %s %s; its last line: %s",
            self.pid,
            describe_exit(report),
            last_line(report),
        )
        if was_killed or tells_of_shortage(report.log_tail):
            return ModelLoadError(
                f"llama-server {describe_exit(report)} while it loaded the model: there was not "
                "enough memory; unload other models, or load it with a smaller n_ctx",
                out_of_memory=True,
            )
        return ModelLoadError(
            f"llama-server {describe_exit(report)} while it loaded the model; its log says why"
        )

    async def _read_log(self) -> None:
        async for line in self._process.read_log():
            self._lines += 1
            logger.debug("llama-server %s: %s", self.pid, line)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
