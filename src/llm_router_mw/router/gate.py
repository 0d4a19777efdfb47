"""Lets a load begin only if its room is still there, whatever other routers on the machine do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from llm_router_mw.memory.machine_lock import Hold, MachineLock
from llm_router_mw.types import Price

_RETRY_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0
"""How long another router may look at a pool; it needs milliseconds."""


class Gate:
    """Looks again before each load, while no other router of the machine can take what is seen."""

    def __init__(
        self,
        lock: MachineLock,
        look: Callable[[], Awaitable[None]],
        room: Callable[[str], int],
    ) -> None:
        self._lock = lock
        self._look = look
        """Reads the memory pools again, and tells the ledger."""
        self._room = room
        """Returns what the ledger says is left of a pool, the load's own charge taken off."""

    async def admit(self, price: Price) -> Hold | None:
        """Return the right to load, to be released when it is over; None if the room is gone."""
        pools = [pool for pool, size in price.bytes_by_pool.items() if size > 0]
        with anyio.move_on_after(_PATIENCE_SECONDS):
            # Other processes send no event when they are done.
            while (hold := self._lock.try_hold(pools)) is None:  # noqa: ASYNC110
                await anyio.sleep(_RETRY_SECONDS)
            return await self._checked(hold, price, pools)
        return None

    async def _checked(self, hold: Hold, price: Price, pools: list[str]) -> Hold | None:
        try:
            await self._look()
            if any(self._room(pool) < 0 for pool in pools):
                hold.release()
                return None
            hold.reserve(price.bytes_by_pool)
            # The reservation is enough for others now: they need not wait for the load.
            hold.unlock()
        except BaseException:
            hold.release()
            raise
        return hold
