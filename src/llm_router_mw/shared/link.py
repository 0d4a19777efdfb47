"""One connection to a host: what is asked over it, and the streams that it carries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.abc
from anyio.abc import SocketAttribute
from msgspec import Struct

from llm_router_mw.errors import HostDiedError, LLMRouterError, WireError, error_from
from llm_router_mw.protocols import OnQueued
from llm_router_mw.router.frame import checked_frame
from llm_router_mw.router.patience import Patience
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.meeting import HOST_STALL_SECONDS, Meeting
from llm_router_mw.shared.messages import (
    Abandon,
    Answered,
    Granted,
    Happened,
    Ping,
    Pong,
    Queued,
    Refused,
    Start,
    ToHost,
    ToWeb,
    Views,
)
from llm_router_mw.shared.peer import end_process
from llm_router_mw.shared.question import Question
from llm_router_mw.types import Task
from llm_router_mw.wire import Step, encode

logger = logging.getLogger("llm_router_mw.shared")

_PING_SECONDS = 10.0
_RECEIVE_BYTES = 1 << 18

News = Happened | Views
"""What a host tells unasked."""
Request = Callable[[int], ToHost]
"""Makes a message of the number under which it will be answered."""


class Link:
    """Speaks with one host. Nothing happens unless ``run`` is running."""

    def __init__(
        self,
        meeting: Meeting,
        on_news: Callable[[News], None],
        *,
        host_stall_seconds: float = HOST_STALL_SECONDS,
        ping_seconds: float = _PING_SECONDS,
        end_host: Callable[[int | None], None] = end_process,
    ) -> None:
        self._stream = meeting.stream
        self._socket = meeting.stream.extra(SocketAttribute.raw_socket)
        self._decoder = meeting.decoder
        self._host_pid = meeting.host_pid
        self._on_news = on_news
        self._ping_seconds = ping_seconds
        self._end_host = end_host
        self._patience = Patience(host_stall_seconds)
        self._next_number = 1
        self._questions: dict[int, Question] = {}
        self._streams: dict[int, RequestStream] = {}
        self._frames: list[bytes] = []
        """Not sent yet."""
        self._filled = anyio.Event()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._ended = anyio.Event()
        self._error: LLMRouterError | None = None
        """Why it is over."""

    @property
    def alive(self) -> bool:
        """Whether the host can still be asked."""
        return self._error is None

    async def run(self) -> None:
        """Carry messages until the connection is lost; what waits for the host then fails."""
        if not self.alive:  # closed before it began
            return
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._write)
                tasks.start_soon(self._ping)
                tasks.start_soon(self._watch, tasks.cancel_scope)
                await self._read()
                tasks.cancel_scope.cancel()
        except Exception:
            # Raised further, the trouble with the host would be the end of the app.
            logger.exception("the connection to the shared router failed")
        finally:
            self._tasks = None
            self._fail(HostDiedError("the host of the shared router ended; ask again"))
            self._ended.set()
            await anyio.aclose_forcefully(self._stream)

    async def aclose(self, error: LLMRouterError) -> None:
        """End the connection at once; all that waits for the host fails with *error*."""
        self._fail(error)
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            await self._ended.wait()
        await anyio.aclose_forcefully(self._stream)

    async def ask(self, request: Request, on_queued: OnQueued | None = None) -> Granted | Answered:
        """Return the answer to *request*. Whoever stops waiting for it is granted nothing.

        Raises:
            HostDiedError: the connection was lost before there was an answer.
            InvalidRequestError: the request cannot be sent.
            LLMRouterError: the host refused.
        """
        if self._error is not None:
            raise _anew(self._error)
        number = self._new_number()
        frame = checked_frame(request(number))
        question = self._questions[number] = Question(on_queued)
        self._send_frame(frame)
        try:
            return await question.answer()
        except anyio.get_cancelled_exc_class():
            self.send(Abandon(number))
            raise
        finally:
            self._questions.pop(number, None)

    def start(
        self, ask: int, index: int, task: Task, *, release: bool, on_finished: Callable[[], None]
    ) -> RequestStream:
        """Start *task* under lease *index* of what *ask* was granted.

        *on_finished* is called when the host is done with it, but not if the connection is lost.

        Raises:
            InvalidRequestError: the task cannot be sent.
        """
        number = self._new_number()
        frame = checked_frame(Start(number, ask, index, task, release))

        def finished() -> None:
            self._streams.pop(number, None)
            if self.alive:
                on_finished()

        # The host sees by the credit who does not read, and judges it.
        stream = RequestStream(number, self.send, finished, on_full=lambda stream: None)
        if self._error is not None:
            stream.fail(_anew(self._error))
        else:
            self._streams[number] = stream
            self._send_frame(frame)
        return stream

    def send(self, message: Struct) -> None:
        """Send *message* soon; what is for a host that is gone is dropped."""
        if self.alive:
            self._send_frame(encode(message))

    def _send_frame(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._filled.set()

    def _new_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    # The tasks

    async def _read(self) -> None:
        try:
            data = b""  # what has come with the welcome
            while True:
                for message in self._decoder.feed(data):
                    self._take(message)
                data = await self._receive()
                if not data:
                    return
                self._patience.heard()
        except WireError as error:
            logger.error("the host of the shared router broke the protocol: %s", error)
        except OSError:
            pass  # it is gone

    async def _receive(self) -> bytes:
        """Return what has come; nothing at the end."""
        # Not the stream's own way, which takes twice as long, and stumbles when it is cancelled in
        # the moment in which something comes. By its number: asyncio would have a socket describe
        # itself each time, which asks the kernel twice.
        while True:
            await anyio.wait_readable(self._socket.fileno())
            with suppress(BlockingIOError):
                return self._socket.recv(_RECEIVE_BYTES)

    async def _write(self) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the reader sees it
            while True:
                await self._filled.wait()
                self._filled = anyio.Event()
                frames, self._frames = self._frames, []
                await self._stream.send(b"".join(frames))

    async def _ping(self) -> None:
        while True:
            await anyio.sleep(self._ping_seconds)
            self.send(Ping())

    async def _watch(self, connection: anyio.CancelScope) -> None:
        await self._patience.outlasts(anyio.Event())
        seconds = self._patience.seconds
        logger.error("the shared router gave no sign of life for %g s and is ended", seconds)
        self._end_host(self._host_pid)
        connection.cancel()

    # Messages

    def _take(self, message: ToWeb) -> None:
        match message:
            case Step(deltas):
                for number, delta in deltas:
                    stream = self._streams.get(number)
                    if stream is not None:  # else it was given up meanwhile
                        stream.feed(delta)
            case Happened() | Views():
                self._on_news(message)
            case Queued(number, place):
                if number in self._questions:
                    self._questions[number].move(place)
            case Granted(number) | Answered(number):
                if number in self._questions:
                    self._questions[number].succeed(message)
            case Refused(number, failure):
                if number in self._questions:
                    self._questions[number].fail(error_from(failure))
            case Pong():
                pass  # that it was heard is all
            case _:
                raise WireError(f"{type(message).__name__} is no answer to anything")

    def _fail(self, error: LLMRouterError) -> None:
        if self._error is not None:
            return
        self._error = error
        for stream in tuple(self._streams.values()):
            stream.fail(_anew(error))
        for question in self._questions.values():
            question.fail(_anew(error))


def _anew(error: LLMRouterError) -> LLMRouterError:
    """Return *error* once more: one that is raised in many places gathers all their tracebacks."""
    return type(error)(error.message, **error.fields)
