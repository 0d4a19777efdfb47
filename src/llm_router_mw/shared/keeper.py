"""Keeps a web process connected to a host, whichever that is at the time."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio
import msgspec
from msgspec.structs import replace

from llm_router_mw.errors import (
    HostDiedError,
    LLMRouterError,
    QueueTimeoutError,
    RouterNotRunningError,
)
from llm_router_mw.protocols import OnQueued
from llm_router_mw.shared.backoff import LONGEST_SECONDS, Backoff
from llm_router_mw.shared.link import Link, Request
from llm_router_mw.shared.meeting import Meeting
from llm_router_mw.shared.messages import Answered, Ask, Granted, Welcome
from llm_router_mw.types import Wish

logger = logging.getLogger("llm_router_mw.shared")

T = TypeVar("T")

HOSTS_TRIED = 3
"""That may die of, or with, one request, before it is given up."""
_FAILURES_BORNE = 3
"""Vain tries to meet a host, one after the other, before those who wait are told."""
_MOMENT_SECONDS = 1.0


class Keeper:
    """Asks hosts, one after the other. Nothing happens unless ``run`` is running.

    When a host is lost, the next one is met at once, and is asked what the lost one had not
    answered.
    """

    def __init__(
        self,
        meet: Callable[[], Awaitable[Meeting]],
        make_link: Callable[[Meeting], Link],
        *,
        on_welcome: Callable[[Welcome], None],
        on_lost: Callable[[], None],
        queue_timeout_seconds: float,
    ) -> None:
        self._meet = meet
        self._make_link = make_link
        self._on_welcome = on_welcome
        self._on_lost = on_lost
        self._queue_timeout_seconds = queue_timeout_seconds
        self._link: Link | None = None
        self._backoff = Backoff()
        self._failures = 0
        self._closed = False
        self._changed = anyio.Event()
        """There is a link, or no hope of one; replaced each time."""

    async def open(self) -> None:
        """Meet the first host.

        Raises:
            LLMRouterError: there is none, and none can be started.
        """
        self._connect(await self._meet())

    async def run(self) -> None:
        """Stay connected; to be cancelled, after ``aclose``."""
        while self._link is not None:
            began = anyio.current_time()
            await self._link.run()
            if self._closed:
                return
            logger.warning("the shared router's host is gone; the next one is being met")
            self._backoff.lasted(anyio.current_time() - began)
            self._link = None
            self._on_lost()
            self._connect(await self._meet_again())

    async def aclose(self) -> None:
        """Let go of the host; whoever waits for it is told so."""
        self._closed = True
        self._tell()
        if self._link is not None:
            await self._link.aclose(_closing())

    async def answer(self, request: Request, kind: type[T]) -> T:
        """Return what a host answers to *request*.

        Raises:
            LLMRouterError: it refused, or there is none.
        """
        until = anyio.current_time() + self._queue_timeout_seconds
        _, answer = await self._ask(request, until)
        assert isinstance(answer, Answered)
        return msgspec.msgpack.decode(answer.result, type=kind)

    async def grant(
        self, names: Sequence[str], wish: Wish, on_queued: OnQueued | None = None
    ) -> tuple[Link, Granted]:
        """Return what a host granted, and by which connection.

        Raises:
            LLMRouterError: it refused, or there is none.
        """
        patience = self._queue_timeout_seconds
        if wish.timeout_seconds is not None:
            patience = min(patience, wish.timeout_seconds)
        began = anyio.current_time()

        def ask(number: int) -> Ask:
            waited = anyio.current_time() - began
            left = wish
            if waited >= _MOMENT_SECONDS:
                left = replace(wish, timeout_seconds=max(patience - waited, 0.001))
            return Ask(number, tuple(names), left, on_queued is not None)

        link, answer = await self._ask(ask, began + patience, on_queued)
        assert isinstance(answer, Granted)
        return link, answer

    async def _ask(
        self, request: Request, until: float, on_queued: OnQueued | None = None
    ) -> tuple[Link, Granted | Answered]:
        lost = 0
        while True:
            link = await self._connected(until)
            try:
                return link, await link.ask(request, on_queued)
            except HostDiedError:
                lost += 1
                if lost == HOSTS_TRIED:
                    raise

    async def _connected(self, until: float) -> Link:
        """Return the connection to a host, once there is one.

        Raises:
            RouterNotRunningError: there is none, and none can be started; or the router closes.
            QueueTimeoutError: the time is *until*.
        """
        while self._link is None or not self._link.alive:
            if self._closed:
                raise _closing()
            if self._failures >= _FAILURES_BORNE:
                # Clients see this: why, and where, is for the log only.
                raise RouterNotRunningError(
                    "the shared router has no host, and none can be started; the log says why",
                    retry_after_seconds=LONGEST_SECONDS,
                )
            with anyio.CancelScope(deadline=until) as bound:
                await self._changed.wait()
            if bound.cancelled_caught:
                raise QueueTimeoutError(
                    "the shared router's host ended, and no other could be asked in time; ask again"
                )
        return self._link

    async def _meet_again(self) -> Meeting:
        while True:
            await anyio.sleep(self._backoff.next())
            try:
                return await self._meet()
            except Exception as error:
                # Whatever it is: raised further, the trouble with the host would end the app.
                known = isinstance(error, LLMRouterError | OSError)
                logger.error(
                    "no host of the shared router: %s", error, exc_info=None if known else error
                )
                self._failures += 1
                self._tell()

    def _connect(self, meeting: Meeting) -> None:
        self._failures = 0
        self._on_welcome(meeting.welcome)
        self._link = self._make_link(meeting)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _closing() -> RouterNotRunningError:
    return RouterNotRunningError("the router is closing")
