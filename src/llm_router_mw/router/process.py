"""A worker process as the operating system sees it: its pipes, its environment, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping

import anyio
import anyio.abc

from llm_router_mw.protocols import ExitReport
from llm_router_mw.router.patience import Patience

# -P: the working directory must not shadow modules; -u would slow the log only.
_COMMAND = (sys.executable, "-P", "-m", "llm_router_mw.worker")
_LOG_LINES = 20
_LOG_LINE_BYTES = 8192
"""A longer line is cut: a worker that never ends one must not fill the router's memory."""
_LAST_WORDS_SECONDS = 1.0

# A worker runs native code on other people's files: it gets what it needs to run and to find its
# devices, and none of the host app's secrets.
_INHERITED = frozenset(
    {"PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"}
    | {"SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME"}
    | {"LLAMA_ARG_RPC"}  # servers whose devices a worker may use
)
_INHERITED_PREFIXES = (
    "LC_",
    "PYTHON",
    "COVERAGE_",  # so that measuring an app's tests measures the workers too
    "OMP_",
    "GOMP_",
    "GGML_",
    "CUDA_",
    "NVIDIA_",
    "HIP_",
    "ROCR_",
    "ROCM_",
    "HSA_",
    "VK_",
    "GLIBC_TUNABLES",
    "MALLOC_",
)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of *environ* that a worker may see, and the router's import path."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    kept["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    return kept


class WorkerProcess:
    """One child process with a framed channel on stdin and stdout and a log on stderr."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._log_ended = anyio.Event()

    @classmethod
    async def spawn(cls) -> WorkerProcess:
        """Start a worker.

        Raises:
            OSError: the operating system refused.
        """
        # Cancelled half-way, it would leave a process behind that nobody waits for.
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=worker_environment(os.environ),
                start_new_session=True,  # Ctrl-C in the terminal is the router's business
            )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exited(self) -> bool:
        return self._process.returncode is not None

    async def send(self, data: bytes) -> None:
        """Write *data* to the worker.

        Raises:
            anyio.BrokenResourceError: the worker is gone.
        """
        assert self._process.stdin is not None
        await self._process.stdin.send(data)

    async def receive(self) -> AsyncIterator[bytes]:
        """Yield what the worker writes, until it closes its end."""
        assert self._process.stdout is not None
        async for data in self._process.stdout:
            yield data

    async def read_log(self) -> AsyncIterator[str]:
        """Yield the lines that the worker logs; the last ones are kept for the exit report."""
        assert self._process.stderr is not None
        rest = b""
        try:
            async for data in self._process.stderr:
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LOG_LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    yield self._keep(line)
            if rest:
                yield self._keep(rest)
        finally:
            self._log_ended.set()

    def _keep(self, line: bytes) -> str:
        text = line.decode(errors="replace").rstrip()
        self._log.append(text)
        return text

    async def wait(self) -> ExitReport:
        """Return when the process is gone."""
        exit_code = await self._process.wait()
        await Patience(_LAST_WORDS_SECONDS).outlasts(self._log_ended)
        return ExitReport(exit_code=exit_code, log_tail="\n".join(self._log))

    def terminate(self) -> None:
        if not self.exited:
            self._process.terminate()

    def kill(self) -> None:
        if not self.exited:
            self._process.kill()

    async def aclose(self) -> None:
        """Close the pipes of a process that is gone."""
        with anyio.CancelScope(shield=True):
            await self._process.aclose()


def describe_exit(report: ExitReport) -> str:
    """Return how the process ended, in words that clients may see."""
    if report.offence:
        how = f"{report.offence} and was ended"
    elif report.exit_code is None:
        how = "never started"
    elif report.exit_code >= 0:
        how = f"exited with code {report.exit_code}"
    else:
        try:
            name = signal.Signals(-report.exit_code).name
        except ValueError:
            name = str(-report.exit_code)
        how = f"was ended by signal {name}"
    return how


def last_line(report: ExitReport) -> str:
    """Return what the process logged last; it may name files, so it is not for clients."""
    return report.log_tail.strip().rpartition("\n")[2]
