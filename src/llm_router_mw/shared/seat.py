"""A host's place at its address: it listens there until it makes way, and then beside it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import SocketListener

from llm_router_mw.shared.address import Address


class Seat:
    """Where this process listens."""

    def __init__(self, listener: SocketListener, address: Address) -> None:
        self.listener = listener
        self._address = address
        self._path = address.socket
        self._inode = self._path.stat().st_ino

    def give_up(self) -> None:
        """Let another host have the address; whoever looks for hosts still finds this one."""
        aside = self._address.socket_of(os.getpid())
        with suppress(FileNotFoundError):
            if self._is_ours():
                self._path = self._path.replace(aside)

    def leave(self) -> None:
        """Remove the socket, unless another host has put its own in the place."""
        with suppress(FileNotFoundError):
            if self._is_ours():
                self._path.unlink()

    def _is_ours(self) -> bool:
        return self._path.stat().st_ino == self._inode


@asynccontextmanager
async def seated(address: Address) -> AsyncIterator[Seat]:
    """Listen at *address*, of which the caller holds the lock."""
    async with await anyio.create_unix_listener(address.socket, mode=0o600) as listener:
        seat = Seat(listener, address)
        try:
            yield seat
        finally:
            # At once: another host comes when it has seen that nobody listens, and takes longer.
            seat.leave()
