"""The answer to one task, as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.types import Delta, Usage


class DeltaStream(Protocol):
    """The answer to one task, as it comes. Iterate it once, to the end or until ``cancel``."""

    @property
    def usage(self) -> Usage:
        """What the request has used; nothing until the worker is done with it."""
        ...

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    async def __anext__(self) -> Delta:
        """Return the next content or embedding delta, or the finish; then stop.

        Raises:
            LLMRouterError: the request failed, in the worker or with it.
        """
        ...

    def cancel(self, error: LLMRouterError | None = None) -> None:
        """End the request at the engine's next step; harmless when it is over.

        With *error* the reader is told the reason: the stream ends with it at once.
        """
        ...
