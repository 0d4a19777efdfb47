"""A lease of a model that lives in the host."""

from __future__ import annotations

from collections.abc import Callable

from llm_router_mw.errors import LeaseExpiredError
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.router.verbs import LeaseVerbs
from llm_router_mw.shared.hold import Hold
from llm_router_mw.shared.remote_stream import RemoteStream
from llm_router_mw.types import ModelInfo, Task


class RemoteLease(LeaseVerbs):
    """As :class:`~llm_router_mw.router.Lease`. It outlives the host that granted it."""

    def __init__(self, hold: Hold, place: int) -> None:
        """Stand for one *place* of what *hold* was granted."""
        self._hold = hold
        self._place = place
        self._streams: set[RemoteStream] = set()
        self._released = False

    @property
    def model(self) -> str:
        """Id of the leased model."""
        return self._hold.model(self._place)

    @property
    def info(self) -> ModelInfo:
        """Facts about the loaded instance."""
        return self._hold.info(self._place)

    def stream(self, task: Task, *, release: bool = False) -> RemoteStream:
        """Start *task*; with *release* the lease ends as soon as the worker is done with it.

        Raises:
            LeaseExpiredError: the lease has been given back.
            InvalidRequestError: the task cannot be sent.
        """
        if self._released:
            raise LeaseExpiredError(f"the lease of {self.model!r} has been released")

        def start(on_finished: Callable[[], None]) -> RequestStream | None:
            return self._hold.start(self._place, task, release=release, on_finished=on_finished)

        def over(stream: RemoteStream) -> None:
            self._streams.discard(stream)
            if release:
                self.release()

        stream = RemoteStream(start, self._hold.renew, over)
        self._streams.add(stream)
        return stream

    def release(self) -> None:
        """Give the instance back; running streams of the lease are cancelled. Idempotent."""
        if not self._released:
            self._released = True
            for stream in tuple(self._streams):
                stream.cancel()
            self._hold.release(self._place)
