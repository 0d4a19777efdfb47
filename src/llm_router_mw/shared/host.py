"""The host: owns the router, and lets web processes in."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable

import anyio
import anyio.abc
from msgspec import Struct

from llm_router_mw.errors import WireError
from llm_router_mw.router import Router
from llm_router_mw.shared.drain import unload_idle
from llm_router_mw.shared.greeting import first_message
from llm_router_mw.shared.messages import (
    PROTOCOL,
    GivenUp,
    GiveUp,
    Greet,
    Other,
    Status,
    ToHost,
    host_decoder,
)
from llm_router_mw.shared.news import News
from llm_router_mw.shared.peer import Peer, peer_of
from llm_router_mw.shared.session import Session
from llm_router_mw.wire import Decoder, encode

logger = logging.getLogger("llm_router_mw.shared")

_ACCEPT_AGAIN_SECONDS = 0.5
_SAY_SECONDS = 10.0
_FIRST_SECONDS = 10.0
"""For whoever started the host to come, at least."""


class Host:
    """Serves web processes that have the same plan; ends when nobody needs it any more."""

    def __init__(
        self,
        router: Router,
        listener: anyio.abc.SocketListener,
        *,
        fingerprint: str,
        version: str,
        grace_seconds: float,
        on_give_up: Callable[[], None],
        peer: Callable[[anyio.abc.SocketStream], Peer] = peer_of,
    ) -> None:
        """Serve *router*, which runs, at *listener*.

        Args:
            router: what is shared.
            listener: accepts web processes; it is closed in the end.
            fingerprint: of the plan that the router was made by.
            version: of the package.
            grace_seconds: how long to stay when no web process is connected.
            on_give_up: makes the address free for another host; it is called once at most.
            peer: tells who has connected.
        """
        self._router = router
        self._listener = listener
        self._fingerprint = fingerprint
        self._version = version
        self._grace_seconds = grace_seconds
        self._on_give_up = on_give_up
        self._peer = peer
        self._news = News(router)
        self._sessions: set[Session] = set()
        self._changed = anyio.Event()
        """Somebody came or left, or the address was given up; replaced each time."""
        self._draining = False

    async def run(self) -> None:
        """Return when nobody has been connected for the grace time.

        A host that has given its address up returns when nobody is connected any more.
        """
        async with self._listener, anyio.create_task_group() as tasks:
            tasks.start_soon(self._news.run)
            tasks.start_soon(self._accept, tasks)
            await self._deserted()
            if self._draining:
                tasks.start_soon(unload_idle, self._router, self._news)
                while self._sessions:
                    await self._changed.wait()
            tasks.cancel_scope.cancel()

    async def _deserted(self) -> None:
        """Return when nobody has come for too long, or nobody will come any more."""
        patience = max(self._grace_seconds, _FIRST_SECONDS)
        while not self._draining:
            changed = self._changed
            with anyio.move_on_after(math.inf if self._sessions else patience):
                await changed.wait()
            if not changed.is_set():  # else somebody came in the very moment
                logger.info("no web process for %g s: the shared router ends", patience)
                return
            patience = self._grace_seconds

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _give_up(self, come: GiveUp) -> None:
        if self._draining:
            return
        logger.warning(
            "this host is replaced by one of version %s and fingerprint %s: it serves those who "
            "are connected, and ends with the last of them",
            come.version,
            come.fingerprint,
        )
        self._draining = True
        self._on_give_up()

    # Connections

    async def _accept(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            try:
                stream = await self._listener.accept()
            except anyio.BrokenResourceError as error:
                logger.error("no web process can be let in: %s", error.__cause__ or error)
                await anyio.sleep(_ACCEPT_AGAIN_SECONDS)
            else:
                tasks.start_soon(self._receive, stream)

    async def _receive(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                if self._is_ours(stream):
                    await self._attend(stream, host_decoder())
            except WireError as error:
                logger.warning("somebody connected who speaks another language: %s", error)
            except (anyio.EndOfStream, anyio.BrokenResourceError, TimeoutError):
                logger.debug("somebody connected, and said nothing or left")
            except Exception:  # one connection's trouble must not end the others
                logger.exception("a connection to the shared router failed")

    def _is_ours(self, stream: anyio.abc.SocketStream) -> bool:
        peer = self._peer(stream)
        if not peer.is_this_user:
            logger.warning("process %s of user %d connected and was refused", peer.pid, peer.uid)
        return peer.is_this_user

    async def _attend(self, stream: anyio.abc.SocketStream, decoder: Decoder[ToHost]) -> None:
        greeting = await first_message(stream, decoder)
        match greeting:
            case Greet() if self._is_for_us(greeting):
                await self._serve(Session(self._router, stream, decoder, self._news, greeting.pid))
            case Greet():
                await _say(stream, Other(PROTOCOL, self._version, self._fingerprint, os.getpid()))
            case GiveUp():
                try:
                    self._give_up(greeting)
                    await _say(stream, GivenUp())
                finally:
                    self._note_change()  # which may be the end
            case _:
                await _say(stream, self._status())

    def _is_for_us(self, greet: Greet) -> bool:
        ours = (PROTOCOL, self._version, self._fingerprint)
        return (greet.protocol, greet.version, greet.fingerprint) == ours and not self._draining

    async def _serve(self, session: Session) -> None:
        self._sessions.add(session)
        self._note_change()
        logger.info("web process %d has come", session.pid)
        try:
            await session.run(self._version)
        finally:
            self._sessions.remove(session)
            self._note_change()
            logger.info("web process %d has gone; %d left", session.pid, len(self._sessions))

    def _status(self) -> Status:
        return Status(
            version=self._version,
            fingerprint=self._fingerprint,
            pid=os.getpid(),
            web_processes=tuple(sorted({session.pid for session in self._sessions})),
            draining=self._draining,
            models=self._router.models(),
        )


async def _say(stream: anyio.abc.ByteSendStream, message: Struct) -> None:
    with anyio.move_on_after(_SAY_SECONDS):
        await stream.send(encode(message))
