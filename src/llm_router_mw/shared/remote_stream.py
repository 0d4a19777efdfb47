"""The answer to one task, from whichever host gives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from llm_router_mw.errors import HostDiedError, LLMRouterError
from llm_router_mw.router.stream import RequestStream
from llm_router_mw.shared.keeper import HOSTS_TRIED
from llm_router_mw.types import Delta, FinishDelta, Usage

StartTask = Callable[[Callable[[], None]], RequestStream | None]
"""Starts a task, unless the host is gone; what it is given is called when the host is done."""


class RemoteStream:
    """A ``DeltaStream``. If the host is lost before anything was read, it starts again unseen."""

    def __init__(
        self,
        start: StartTask,
        renew: Callable[[], Awaitable[None]],
        on_over: Callable[[RemoteStream], None],
    ) -> None:
        """Start at once.

        *renew* sees to it that there is a host to start on; *on_over* is called when the task is
        over.

        Raises:
            InvalidRequestError: the task cannot be sent.
        """
        self._start = start
        self._renew = renew
        self._on_over = on_over
        self._hosts_lost = 0
        self._began = False
        """Whether something was read."""
        self._cancelled = False
        self._over = False
        self._error: LLMRouterError | None = None
        """Why it ended without a host."""
        self._told = False
        """That it ended so."""
        self._renewing: anyio.CancelScope | None = None
        self._inner = start(self._finish)
        """What the present host answers."""

    @property
    def usage(self) -> Usage:
        """As ``DeltaStream.usage``."""
        return self._inner.usage if self._inner is not None else Usage()

    def __aiter__(self) -> RemoteStream:
        return self

    async def __anext__(self) -> Delta:
        while True:
            if self._inner is not None:
                try:
                    delta = await self._inner.__anext__()
                except HostDiedError as error:
                    self._lose(error)
                else:
                    self._began = True
                    return delta
            elif self._over:
                return self._last_word()
            else:
                await self._start_again()

    def cancel(self, error: LLMRouterError | None = None) -> None:
        """As ``DeltaStream.cancel``."""
        if self._over:
            return
        self._cancelled = True
        if self._inner is not None:
            self._inner.cancel(error)
            return
        self._end(error)
        if self._renewing is not None:
            self._renewing.cancel()

    async def _start_again(self) -> None:
        with anyio.CancelScope() as self._renewing:
            try:
                await self._renew()
                if not self._over:
                    self._inner = self._start(self._finish)
            except LLMRouterError as error:
                self._end(error)
        self._renewing = None

    def _lose(self, error: HostDiedError) -> None:
        """The host is gone: that is the end, unless another one may be asked."""
        self._inner = None
        self._hosts_lost += 1
        if self._cancelled:
            self._end(None)
        elif self._began or self._hosts_lost == HOSTS_TRIED:
            self._end(error)

    def _end(self, error: LLMRouterError | None) -> None:
        if not self._over:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self._over = True
        self._on_over(self)

    def _last_word(self) -> Delta:
        """Return, or raise, what the reader is told of an end that no host tells of."""
        if self._error is not None:
            raise self._error
        if self._told:
            raise StopAsyncIteration
        self._told = True
        return FinishDelta("cancelled", Usage())
