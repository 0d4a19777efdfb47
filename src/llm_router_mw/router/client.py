"""The router's end of the pipe to one worker (an ``EngineInstance``)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.abc
import msgspec

from llm_router_mw import __version__
from llm_router_mw.errors import (
    InvalidRequestError,
    LLMRouterError,
    ModelLoadError,
    WireError,
    WorkerDiedError,
    error_from,
)
from llm_router_mw.protocols import ExitReport
from llm_router_mw.router.process import WorkerProcess, describe_exit, last_line
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.types import ModelInfo, Task
from llm_router_mw.wire import (
    PROTOCOL,
    Decoder,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    Progress,
    Ready,
    Step,
    Stop,
    Submit,
    ToRouter,
    ToWorker,
    encode,
    router_decoder,
)

logger = logging.getLogger("llm_router_mw.worker")

_START_SECONDS = 60.0
_LAST_FRAMES_SECONDS = 1.0
_FAREWELL_SECONDS = 10.0
"""From the end of the channel to the end of the process, at most."""

_submits = msgspec.msgpack.Decoder(Submit)


class WorkerClient:
    """Speaks with one worker process. Nothing happens unless ``run`` is running."""

    def __init__(
        self, process: WorkerProcess, *, stall_seconds: float, load_stall_seconds: float
    ) -> None:
        self._process = process
        self._stall_seconds = stall_seconds
        self._load_stall_seconds = load_stall_seconds
        self._streams: dict[int, RequestStream] = {}
        self._next_id = 1
        self._outgoing, self._to_send = anyio.create_memory_object_stream[bytes](math.inf)
        self._tasks: anyio.abc.TaskGroup | None = None
        self._progress: Callable[[float], None] = lambda _: None
        self._info: ModelInfo | None = None
        self._error: LLMRouterError | None = None
        self._offence: str | None = None
        """What the worker did to be ended by us."""
        self._report: ExitReport | None = None
        self._greeted = anyio.Event()
        self._settled = anyio.Event()
        """The load has ended, one way or the other."""
        self._moved = anyio.Event()
        """The load has made progress; replaced after each."""
        self._read_ended = anyio.Event()
        self._gone = anyio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether the worker can still be asked to load something."""
        return not self._process.exited and self._error is None and self._offence is None

    async def run(self) -> None:
        """Carry messages until the process is gone. However this ends, the process is gone too."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._read_log)
                tasks.start_soon(self._write)
                tasks.start_soon(self._watch_exit)
                await self._read()
        except Exception:
            # Raised further, the trouble with this worker would be the end of all others.
            logger.exception("the channel to worker %s failed", self.pid)
            self._offence = "could not be understood"
        finally:
            self._tasks = None
            await self._bury()

    async def greet(self) -> None:
        """Shake hands with the worker.

        Raises:
            ModelLoadError: it did not start, or speaks another version.
        """
        self._send(Hello(PROTOCOL, __version__))
        with anyio.move_on_after(_START_SECONDS):
            await self._greeted.wait()
        if not self._greeted.is_set():
            self.kill()
            raise ModelLoadError(f"a worker did not start within {_START_SECONDS:g} s")
        if self._error is not None:
            raise ModelLoadError(f"a worker could not start: {self._error}")

    async def load(self, order: Load, progress: Callable[[float], None]) -> ModelInfo:
        self._progress = progress
        self._send(order)
        while not self._settled.is_set():
            self._moved = anyio.Event()
            with anyio.move_on_after(self._load_stall_seconds) as scope:
                await self._moved.wait()
            if scope.cancelled_caught and not self._settled.is_set():
                self.kill()
                raise ModelLoadError(
                    f"loading made no progress for {self._load_stall_seconds:g} s and was given up"
                )
        if self._info is None:
            assert self._error is not None
            raise self._error
        return self._info

    async def settled(self) -> None:
        """Return when the load has ended, one way or the other."""
        await self._settled.wait()

    def submit(self, task: Task, on_finished: Callable[[], None]) -> RequestStream:
        request_id = self._next_id
        frame = _checked_frame(Submit(request_id, task))
        self._next_id += 1

        def finished() -> None:
            self._streams.pop(request_id, None)
            on_finished()

        stream = RequestStream(request_id, self._send, finished, self._watch_stall)
        if not self.usable:
            stream.fail(self._died())
        else:
            self._streams[request_id] = stream
            self._send_frame(frame)
        return stream

    async def stop(self, timeout_seconds: float) -> None:
        with anyio.CancelScope(shield=True):  # bounded: each rung of the ladder has its time
            self._send(Stop())
            for next_rung in (self._process.terminate, self._process.kill):
                with anyio.move_on_after(timeout_seconds):
                    await self._gone.wait()
                    return
                next_rung()
            await self._gone.wait()

    def kill(self) -> None:
        self._process.kill()

    async def wait(self) -> ExitReport:
        await self._gone.wait()
        assert self._report is not None
        return self._report

    # The tasks

    async def _read(self) -> None:
        decoder = router_decoder()
        try:
            async for data in self._process.receive():
                for message in decoder.feed(data):
                    self._take(message)
        except WireError as error:
            self._expel(f"broke the protocol ({error})")
        except OSError:
            pass  # the pipe broke with the process; the exit report says why
        finally:
            self._read_ended.set()
        await self._expect_exit()

    async def _expect_exit(self) -> None:
        # A worker that closed the channel is on its way out. One that stays is deaf or dumb.
        await anyio.sleep(_FAREWELL_SECONDS)
        self._expel("closed its channel")

    def _expel(self, offence: str) -> None:
        logger.error("worker %s %s and is ended", self.pid, offence)
        self._offence = offence
        self.kill()

    async def _write(self) -> None:
        try:
            async for frame in self._to_send:
                await self._process.send(frame)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await self._expect_exit()

    async def _read_log(self) -> None:
        async for line in self._process.read_log():
            logger.debug("worker %s: %s", self.pid, line)

    async def _watch_exit(self) -> None:
        report = await self._process.wait()
        # What was written before the end is read first, and ends the requests as it says.
        with anyio.move_on_after(_LAST_FRAMES_SECONDS):
            await self._read_ended.wait()
        self._report = report
        if report.exit_code and (last := last_line(report)):
            how = describe_exit(report)
            logger.warning("worker %s %s; its last line: %s", self.pid, how, last)
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()

    async def _bury(self) -> None:
        with anyio.CancelScope(shield=True):
            self.kill()
            if self._report is None:
                self._report = await self._process.wait()
            await self._process.aclose()
        self._outgoing.close()
        self._to_send.close()
        error = self._died()
        for stream in list(self._streams.values()):
            stream.fail(error)
        self._settle(error)
        self._greeted.set()
        self._gone.set()

    # Messages

    def _send(self, message: ToWorker) -> None:
        self._send_frame(encode(message))

    def _send_frame(self, frame: bytes) -> None:
        # What is for a worker that is gone is dropped: its requests have ended with it.
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._outgoing.send_nowait(frame)

    def _take(self, message: ToRouter) -> None:
        match message:
            case Step(deltas):
                for request_id, delta in deltas:
                    stream = self._streams.get(request_id)
                    if stream is not None:  # else it was cancelled meanwhile
                        stream.feed(delta)
            case Progress(value):
                self._progress(value)
                self._moved.set()
            case Loaded(info):
                self._info = info
                self._settle(None)
            case LoadFailed(failure):
                self._settle(error_from(failure))
                self._greeted.set()  # a worker of another version refuses instead of greeting
            case Ready():
                self._greeted.set()

    def _settle(self, error: LLMRouterError | None) -> None:
        if not self._settled.is_set():
            self._error = error
            self._settled.set()
            self._moved.set()

    def _died(self) -> LLMRouterError:
        if self._offence is not None:
            how = f"{self._offence} and was ended"
        else:
            how = describe_exit(self._report) if self._report else "is being ended"
        return WorkerDiedError(f"the worker of this model {how}; ask again to reload it")

    def _watch_stall(self, stream: RequestStream) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(stream.watch_stall, self._stall_seconds)


def _checked_frame(message: Submit) -> bytes:
    """Return *message* as a frame that the worker will understand.

    A task that app code made may hold anything; a worker that can't read a frame ends itself, and
    all other requests with it.
    """
    try:
        frame = encode(message)
        next(Decoder(_submits).feed(frame))
    except (WireError, msgspec.MsgspecError, TypeError, ValueError, ArithmeticError) as error:
        raise InvalidRequestError(f"the task cannot be sent to the worker: {error}") from error
    return frame
