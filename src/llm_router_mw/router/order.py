"""Something that a worker was told to do, and what came of it."""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.router.patience import Patience

AnswerT = TypeVar("AnswerT")


class Order(Generic[AnswerT]):
    """Waits for the answer to one message."""

    def __init__(self, patience_seconds: float) -> None:
        """Wait as long as no silence lasts longer than *patience_seconds*."""
        self._patience = Patience(patience_seconds)
        self._answered = anyio.Event()
        self._answer: AnswerT | None = None
        self._error: LLMRouterError | None = None

    def heard(self) -> None:
        """The worker said something."""
        self._patience.heard()

    def succeed(self, answer: AnswerT) -> None:
        """The worker did what it was told."""
        self._answer = answer
        self._answered.set()

    def fail(self, error: LLMRouterError) -> None:
        """The worker could not do it; an answer that has come already stands."""
        self._error = error
        self._answered.set()

    async def outcome(self) -> AnswerT:
        """Return the answer.

        Raises:
            LLMRouterError: the worker could not do it.
            TimeoutError: it said nothing for too long.
        """
        if not await self._patience.outlasts(self._answered):
            raise TimeoutError
        if self._answer is not None:
            return self._answer
        assert self._error is not None
        raise self._error
