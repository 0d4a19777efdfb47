"""A real worker process, with the router's end of its pipes."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from llm_router_mw import wire
from llm_router_mw.types import CompletionTask, Delta, LoadOptions, Sampling, Task

REPOSITORY = Path(__file__).parents[2]
CHAT_FORMATS = {"template": "llm_router_mw.engine.chat_template:TemplateChatFormat"}
COMMAND = (sys.executable, "-m", "llm_router_mw.worker")
LONG_CONTEXT = 65_536
OPTIONS = {"n_ctx": 256, "n_threads": 1}
ENDLESS_TASK = CompletionTask(prompt="the fox", sampling=Sampling(temperature=0))
DEADLINE_SECONDS = 30.0

MessageT = TypeVar("MessageT", bound=wire.ToRouter)


class WorkerProcess:
    """Starts a worker, sends it messages and reads its frames; what it logs goes to a file."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self._stdout = self.process.stdin, self.process.stdout
        self._decoder = wire.router_decoder()
        self._received: deque[wire.ToRouter] = deque()

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self._log.read_text()

    def send(self, *messages: wire.ToWorker) -> None:
        """Send *messages*."""
        self.stdin.write(b"".join(map(wire.encode, messages)))
        self.stdin.flush()

    def receive(self) -> wire.ToRouter | None:
        """Return the next message, or None at the end of the stream."""
        while not self._received:
            readable, _, _ = select.select([self._stdout], [], [], DEADLINE_SECONDS)
            assert readable, "the worker says nothing"
            data = os.read(self._stdout.fileno(), 1 << 16)
            if not data:
                return None
            self._received.extend(self._decoder.feed(data))
        return self._received.popleft()

    def silent(self, seconds: float) -> bool:
        """Tell whether it says nothing for so long."""
        readable, _, _ = select.select([self._stdout], [], [], seconds)
        return not self._received and not readable

    def expect(self, kind: type[MessageT]) -> MessageT:
        """Return the next message, which must be of *kind*."""
        message = self.receive()
        assert isinstance(message, kind), message
        return message

    def rest(self) -> list[wire.ToRouter]:
        """Return all messages up to the end of the stream."""
        return list(iter(self.receive, None))

    def hello(self) -> None:
        """Shake hands."""
        self.send(wire.Hello(wire.PROTOCOL, "0"))
        self.expect(wire.Ready)

    def begin_load(
        self, path: Path, formats: dict[str, str] = CHAT_FORMATS, **options: object
    ) -> None:
        """Shake hands and send a load; return when it has begun."""
        self.hello()
        load_options = LoadOptions(**{**OPTIONS, **options})  # type: ignore[arg-type]
        self.send(wire.Load(str(path), load_options, formats, {"TINY_MARK": "set by the router"}))
        assert self.expect(wire.Progress).value == 0.0

    def load(
        self, path: Path, formats: dict[str, str] = CHAT_FORMATS, **options: object
    ) -> wire.Loaded:
        """Shake hands and load."""
        self.begin_load(path, formats, **options)
        while isinstance(message := self.receive(), wire.Progress):
            pass
        assert isinstance(message, wire.Loaded), message
        return message

    def deltas(self, request_id: int, count: int) -> list[Delta]:
        """Return the next *count* deltas of request *request_id*; those of others are dropped."""
        found: list[Delta] = []
        while len(found) < count:
            step = self.expect(wire.Step)
            found += [delta for number, delta in step.deltas if number == request_id]
        assert len(found) == count
        return found

    def answer(self, request_id: int, task: Task) -> list[Delta]:
        """Return all deltas of *task*, submitted alone."""
        self.send(wire.Submit(request_id, task))
        found: list[Delta] = []
        while not found or found[-1].__struct_config__.tag not in ("finish", "failure"):
            found += [delta for _, delta in self.expect(wire.Step).deltas]
        return found

    def exit_code(self) -> int:
        """Return the exit code when it has ended."""
        return self.process.wait(DEADLINE_SECONDS)

    def close(self) -> None:
        """End it however it is; without force if possible, which lets it save its coverage."""
        with suppress(BrokenPipeError):
            self.stdin.close()
        try:
            self.exit_code()
        finally:
            self.process.kill()
            self.process.wait()
            self._stdout.close()


def gone(pid: int) -> bool:
    """Tell whether no process *pid* runs any more (a zombie does not run)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_until_gone(pid: int) -> None:
    """Return when process *pid* has ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)
