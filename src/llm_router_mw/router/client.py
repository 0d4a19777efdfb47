"""The router's end of the pipe to one worker (an ``EngineInstance``)."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
import anyio.abc
import anyio.lowlevel
from msgspec.structs import replace

from llm_router_mw import __version__
from llm_router_mw.errors import (
    LLMRouterError,
    ModelLoadError,
    WireError,
    WorkerDiedError,
    error_from,
)
from llm_router_mw.protocols import ExitReport, SleepReport
from llm_router_mw.router.frame import checked_frame
from llm_router_mw.router.order import Order
from llm_router_mw.router.patience import Patience
from llm_router_mw.router.process import WorkerProcess, describe_exit, last_line
from llm_router_mw.router.requests import Requests
from llm_router_mw.router.sequences import WorkerSequences
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shortage import tells_of_shortage
from llm_router_mw.types import ModelInfo, SequenceInfo, SleepLevel, Snapshot, Spare, Task
from llm_router_mw.wire import (
    PROTOCOL,
    Alive,
    Hello,
    Load,
    Loaded,
    LoadFailed,
    Progress,
    Ready,
    Sleep,
    SleepFailed,
    Slept,
    SnapshotNews,
    Step,
    Stop,
    Submit,
    ToRouter,
    ToWorker,
    Wake,
    encode,
    router_decoder,
)

logger = logging.getLogger("llm_router_mw.worker")

_START_SECONDS = 60.0
_LAST_FRAMES_SECONDS = 1.0
_FAREWELL_SECONDS = 10.0
"""From the end of the channel to the end of the process, at most."""


class WorkerClient:
    """Speaks with one worker process. Nothing happens unless ``run`` is running."""

    def __init__(
        self,
        process: WorkerProcess,
        *,
        stall_seconds: float,
        load_stall_seconds: float,
        worker_stall_seconds: float,
    ) -> None:
        self._process = process
        self._stall_seconds = stall_seconds
        self._load_stall_seconds = load_stall_seconds
        self._requests = Requests(worker_stall_seconds)
        self._sequences = WorkerSequences(self._send, worker_stall_seconds)
        self._next_id = 1
        self._outgoing, self._to_send = anyio.create_memory_object_stream[bytes](math.inf)
        self._tasks: anyio.abc.TaskGroup | None = None
        self._progress: Callable[[float], None] = lambda _: None
        self._order: Order[Loaded | Slept] | None = None
        """What it is told to do, until it has answered."""
        self._error: LLMRouterError | None = None
        """Why it will never be of use: it did not greet, could not load, or is gone."""
        self._offence = ""
        """What the worker did to be ended by us."""
        self._killed = False
        """Whether it was us who killed it."""
        self._report: ExitReport | None = None
        self._greeted = anyio.Event()
        self._settled = anyio.Event()
        """The load has ended, one way or the other."""
        self._read_ended = anyio.Event()
        self._gone = anyio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether the worker can still be asked to load something."""
        return not (self._process.exited or self._error or self._offence)

    async def run(self) -> None:
        """Carry messages until the process is gone. However this ends, the process is gone too."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._read_log)
                tasks.start_soon(self._write)
                tasks.start_soon(self._watch_exit)
                tasks.start_soon(self._watch_work)
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
        if not await Patience(_START_SECONDS).outlasts(self._greeted):
            self.kill()
            raise ModelLoadError(f"a worker did not start within {_START_SECONDS:g} s")
        if self._error is not None:
            raise ModelLoadError(f"a worker could not start: {self._error}")

    async def load(self, order: Load, progress: Callable[[float], None]) -> ModelInfo:
        return await self._load(order, progress)

    async def wake(self, progress: Callable[[float], None]) -> ModelInfo:
        return await self._load(Wake(), progress)

    async def _load(self, message: Load | Wake, progress: Callable[[float], None]) -> ModelInfo:
        self._progress = progress
        limit = self._load_stall_seconds
        if self._error is not None:
            raise self._error
        try:
            loaded = await self._obeyed(message, limit)
        except WorkerDiedError as error:
            raise self._died_of_shortage() or error from None
        except TimeoutError:
            self.kill()
            raise ModelLoadError(
                f"loading made no progress for {limit:g} s and was given up"
            ) from None
        assert isinstance(loaded, Loaded)
        return loaded.info

    async def sleep(self, level: SleepLevel) -> SleepReport:
        limit = self._requests.stall_seconds
        if self._error is not None:
            raise self._error
        try:
            slept = await self._obeyed(Sleep(level), limit)
        except TimeoutError:
            self._expel(f"was stuck (it did not fall asleep within {limit:g} s)")
            raise self._died() from None
        assert isinstance(slept, Slept)
        return SleepReport(
            seconds=slept.seconds,
            private_bytes=slept.private_bytes,
            freed_bytes=slept.freed_bytes,
        )

    async def _obeyed(self, message: Load | Wake | Sleep, stall_seconds: float) -> Loaded | Slept:
        """Return the answer to *message*.

        Raises:
            LLMRouterError: the worker refused or failed, or ended.
            TimeoutError: it said nothing for *stall_seconds*.
        """
        order: Order[Loaded | Slept]
        order = self._order = Order(stall_seconds)
        self._send(message)
        try:
            return await order.outcome()
        finally:
            self._order = None

    async def sequences(self) -> tuple[SequenceInfo, ...]:
        return await self._sequences.list()

    async def save(self, sequence: int, path: str) -> Snapshot:
        return await self._sequences.save(sequence, path)

    def offer(self, snapshots: Sequence[Snapshot], spares: Sequence[Spare]) -> None:
        self._sequences.offer(snapshots, spares)

    def withdraw(self, paths: Sequence[str]) -> None:
        self._sequences.withdraw(paths)

    def listen(self, listener: Callable[[SnapshotNews], None]) -> None:
        self._sequences.listen(listener)

    def submit(self, task: Task, on_finished: Callable[[], None]) -> RequestStream:
        request_id = self._next_id
        frame = checked_frame(Submit(request_id, task))
        self._next_id += 1

        def finished() -> None:
            self._requests.remove(request_id)
            on_finished()

        stream = RequestStream(request_id, self._send, finished, self._watch_stall)
        if not self.usable:
            stream.fail(self._died())
        else:
            self._requests.add(request_id, stream)
            self._send_frame(frame)
        return stream

    async def stop(self, timeout_seconds: float) -> None:
        with anyio.CancelScope(shield=True):  # bounded: each rung of the ladder has its time
            self._send(Stop())
            for next_rung in (self._process.terminate, self.kill):
                if await Patience(timeout_seconds).outlasts(self._gone):
                    return
                next_rung()
            await self._gone.wait()

    def kill(self) -> None:
        if not self._process.exited:
            self._killed = True
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
                self._heard()
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

    def _heard(self) -> None:
        self._requests.heard()
        self._sequences.heard()
        if self._order is not None:
            self._order.heard()

    async def _watch_work(self) -> None:
        await self._requests.stuck()
        seconds = self._requests.stall_seconds
        self._expel(f"was stuck (it gave no sign of life for {seconds:g} s)")

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
        await Patience(_LAST_FRAMES_SECONDS).outlasts(self._read_ended)
        self._report = report
        if report.exit_code and (last := last_line(report)):
            how = describe_exit(report)
            logger.warning("worker %s %s; its last line: %s", self.pid, how, last)
        assert self._tasks is not None
        self._tasks.cancel_scope.cancel()

    async def _bury(self) -> None:
        with anyio.CancelScope(shield=True):
            self.kill()
            report = self._report or await self._process.wait()
            await self._process.aclose()
        self._report = replace(report, offence=self._offence)
        self._outgoing.close()
        self._to_send.close()
        error = self._died()
        self._error = self._error or error
        self._gone.set()
        with anyio.CancelScope(shield=True):
            # Who waits for the end learns of it first: a client whose request fails may ask again
            # at once, and must not be given this worker once more.
            await anyio.lowlevel.checkpoint()
        self._requests.fail(error)
        self._sequences.fail(error)
        if self._order is not None:
            self._order.fail(error)
        self._settled.set()
        self._greeted.set()

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
                self._requests.feed(deltas)
            case Progress(value):
                self._progress(value)
            case Loaded() | Slept():
                self._settled.set()
                if self._order is not None:
                    self._order.succeed(message)
            case LoadFailed(failure) | SleepFailed(failure):
                self._failed(error_from(failure))
            case Ready():
                self._greeted.set()
            case Alive():
                pass  # that it was heard is all
            case _:
                self._sequences.take(message)

    def _failed(self, error: LLMRouterError) -> None:
        if not self._settled.is_set():  # what has been loaded once can be asked again
            self._error = error
            self._settled.set()
            self._greeted.set()  # a worker of another version refuses instead of greeting
        if self._order is not None:
            self._order.fail(error)

    def _died(self) -> LLMRouterError:
        if self._report is not None:
            how = describe_exit(self._report)
        else:
            how = f"{self._offence} and was ended" if self._offence else "is being ended"
        return WorkerDiedError(f"the worker of this model {how}; ask again to reload it")

    def _died_of_shortage(self) -> LLMRouterError | None:
        """Return the error of a load that memory ran out for; None if the worker died otherwise."""
        report = self._report
        assert report is not None
        # Where memory is short, systems end processes without a word. Nobody else kills workers.
        killed = report.exit_code == -signal.SIGKILL and not self._killed
        if not killed and not tells_of_shortage(report.log_tail):
            return None
        return ModelLoadError(
            f"the worker {describe_exit(report)} while it loaded the model: there was not enough "
            "memory; unload other models, or load it with a smaller n_ctx",
            out_of_memory=True,
        )

    def _watch_stall(self, stream: RequestStream) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(stream.watch_stall, self._stall_seconds)
