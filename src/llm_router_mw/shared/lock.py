"""The right to start a host at an address, or to replace the one that is there."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.runtime_directory import try_lock
from llm_router_mw.shared.address import Address

_LOOK_SECONDS = 0.02
"""Between two tries."""


@asynccontextmanager
async def locked(address: Address, patience_seconds: float) -> AsyncIterator[int]:
    """Hold the lock of *address*; yields its descriptor.

    A process that inherits the descriptor holds the lock too, for as long as it has it open: so a
    host that starts is not disturbed though whoever started it is killed.

    Raises:
        RouterNotRunningError: somebody else has held it for *patience_seconds*.
    """
    descriptor = os.open(address.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with anyio.move_on_after(patience_seconds) as bound:
            while not try_lock(descriptor):  # noqa: ASYNC110  # the kernel tells nobody
                await anyio.sleep(_LOOK_SECONDS)
        if bound.cancelled_caught:
            raise RouterNotRunningError(
                f"another process has tried for {patience_seconds:g} s to start the shared router; "
                f"see its log, {str(address.log)!r}"
            )
        yield descriptor
    finally:
        os.close(descriptor)
