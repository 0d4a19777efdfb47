"""Something that a host was asked, until it has answered."""

from __future__ import annotations

import logging

import anyio

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.protocols import OnQueued
from llm_router_mw.shared.messages import Answered, Granted
from llm_router_mw.types import QueuePlace

logger = logging.getLogger("llm_router_mw.shared")


class Question:
    """One request, and who waits for its answer."""

    def __init__(self, on_queued: OnQueued | None) -> None:
        self._on_queued = on_queued
        self._answer: Granted | Answered | None = None
        self._error: LLMRouterError | None = None
        self._over = anyio.Event()

    async def answer(self) -> Granted | Answered:
        """Return the answer, once there is one.

        Raises:
            LLMRouterError: as ``fail`` says.
        """
        await self._over.wait()
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    def succeed(self, answer: Granted | Answered) -> None:
        """This is the answer."""
        self._answer = answer
        self._over.set()

    def fail(self, error: LLMRouterError) -> None:
        """There is no answer, because of *error*; one that came before that counts."""
        if not self._over.is_set():
            self._error = error
            self._over.set()

    def move(self, place: QueuePlace) -> None:
        """Tell who asked that it now stands at *place*."""
        if self._on_queued is None:
            return
        try:
            self._on_queued(place)
        except Exception:  # app code's own failure must not end the connection
            logger.exception("a request could not be told its place in the queue")
            self._on_queued = None
