"""A connection to whoever listens at a socket, before anything has been agreed."""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.abc import SocketStream, UNIXSocketStream

from llm_router_mw import wire
from llm_router_mw.errors import RouterNotRunningError, WireError
from llm_router_mw.shared.messages import ToHost, ToWeb, web_decoder
from llm_router_mw.shared.peer import peer_of

logger = logging.getLogger("llm_router_mw.shared")

_ROOM_SECONDS = 10.0
"""A host that lets nobody in for so long, while many wait for it, is none."""
_LOOK_SECONDS = 0.02
"""Between two looks whether there is room among those who wait."""


class Call:
    """One question and its answer, and whatever comes of it. End it with :meth:`hang_up`."""

    def __init__(self, stream: SocketStream, pid: int | None) -> None:
        self.stream = stream
        self.pid = pid
        """Of the process at the other end; None if it is not known here."""
        self.decoder = web_decoder()
        """May hold more than the answer."""

    async def ask(self, question: ToHost) -> ToWeb | None:
        """Return the answer, however long it takes; None if the other end hangs up instead.

        An answer that is not in our language is none.
        """
        try:
            await self.stream.send(wire.encode(question))
            while True:
                for answer in self.decoder.feed(await self.stream.receive()):
                    return answer
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return None
        except WireError as error:
            logger.warning("process %s is no host that can be talked with: %s", self.pid, error)
            return None

    async def hang_up(self) -> None:
        """Close the connection."""
        await self.stream.aclose()


async def call(path: Path) -> Call | None:
    """Return a connection to whoever listens at the socket *path*; None if nobody does.

    Raises:
        RouterNotRunningError: it is another user's process.
    """
    try:
        with anyio.fail_after(_ROOM_SECONDS):
            stream = await _connected(path)
    except OSError:  # there is no such socket, or nobody listens on it any more
        return None
    try:
        peer = peer_of(stream)
    except OSError:  # it has just ended; not every kernel says then who it was
        await stream.aclose()
        return None
    if not peer.is_this_user:
        await stream.aclose()
        raise RouterNotRunningError(
            f"process {peer.pid}, which listens at {str(path)!r}, is another user's; "
            "end it, or set XDG_RUNTIME_DIR to a directory that only this user may use"
        )
    return Call(stream, peer.pid)


async def _connected(path: Path) -> SocketStream:
    # Not by anyio.connect_unix: where there is no room it keeps the loop busy, and cannot be
    # cancelled.
    end = socket.socket(socket.AF_UNIX)
    try:
        end.setblocking(False)
        while True:
            with suppress(BlockingIOError):
                end.connect(os.fspath(path))
                return await UNIXSocketStream.from_socket(end)
            await anyio.sleep(_LOOK_SECONDS)
    except BaseException:
        end.close()
        raise
