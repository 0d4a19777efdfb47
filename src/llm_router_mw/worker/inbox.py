"""Messages on their way from the reader thread to the engine, and the end of the process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple

from llm_router_mw import wire
from llm_router_mw.errors import WireError
from llm_router_mw.worker.channel import Channel

logger = logging.getLogger("llm_router_mw.worker")

ORPHANED = 70
"""Exit code of a worker whose router is gone."""
_PARENT_CHECK_SECONDS = 1.0


class Prepared(NamedTuple):
    """News from the engine's own second thread: a large request has been made ready."""

    request_id: int
    result: Any


class Then(NamedTuple):
    """Something that was begun aside, and is to be finished in the engine's thread."""

    call: Callable[[], None]


Message = wire.ToWorker | Prepared | Then


class Inbox:
    """Reads the channel in a thread, so that messages and the router's death are seen in time.

    The main thread may be deep in native code for minutes; a worker that nobody talks to any more
    must not hold its memory so long. The thread therefore ends the process by itself.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._parent = os.getppid()
        self.stop_requested = Event()
        """Set as soon as a stop has arrived, even while the main thread is busy."""
        self._listener: Callable[[wire.ToWorker], None] = lambda message: None
        self._thread = Thread(target=self._read, name="reader", daemon=True)

    def tell(self, listener: Callable[[wire.ToWorker], None]) -> None:
        """Let *listener* know of each message, in the reader's thread, once it can be fetched."""
        self._listener = listener

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def put(self, message: Message) -> None:
        """Add a message of the process's own; from any thread."""
        self._messages.put(message)

    def wait(self) -> Message:
        """Return the next message; sleep until there is one."""
        return self._messages.get()

    def wait_at_most(self, seconds: float) -> Message | None:
        """Return the next message, or None if there is none within *seconds*."""
        try:
            return self._messages.get(timeout=seconds)
        except Empty:
            return None

    def poll(self) -> Message | None:
        """Return the next message, or None if there is none yet."""
        try:
            return self._messages.get_nowait()
        except Empty:
            return None

    def _read(self) -> None:
        while True:
            try:
                messages = self._channel.receive(_PARENT_CHECK_SECONDS)
                # A process forked beside us may hold the pipe open: look at the parent too.
                if messages is None or os.getppid() != self._parent:
                    os._exit(ORPHANED)
                for message in messages:
                    if isinstance(message, wire.Stop):
                        self.stop_requested.set()
                    self._messages.put(message)
                    self._listener(message)
            except (OSError, WireError):
                logger.exception("the channel to the router is broken")
                os._exit(ORPHANED)
