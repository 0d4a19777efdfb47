"""Lets a load or a wake begin only if its room is still there, whatever others do meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import anyio

from llm_router_mw.memory.machine_lock import Hold, MachineLock
from llm_router_mw.types import Price

_RETRY_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0
"""How long another router may look at a pool, which takes it milliseconds, and how long it may
take to free what is shed for the load."""


class Gate:
    """Looks again before each load, while no other router of the machine can take what is seen."""

    def __init__(
        self,
        lock: MachineLock,
        look: Callable[[], Awaitable[None]],
        room: Callable[[str], int],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._lock = lock
        self._look = look
        """Reads the memory pools again, and tells the ledger."""
        self._room = room
        """Returns what the ledger says is left of a pool, the load's own charge taken off."""
        self._settled = settled
        """Returns when what is shed for models is free."""

    async def admit(self, price: Price, held: Mapping[str, int] = {}) -> Hold | None:
        """Return the right to load, to be released when it is over; None if the room is gone.

        *held* is what its process has of each pool already, as one that sleeps does.
        """
        pools = [pool for pool, size in price.bytes_by_pool.items() if size > 0]
        more = {pool: max(0, price.bytes_by_pool[pool] - held.get(pool, 0)) for pool in pools}
        with anyio.move_on_after(_PATIENCE_SECONDS):
            # Other processes send no event when they are done.
            while (hold := self._lock.try_hold(pools)) is None:  # noqa: ASYNC110
                await anyio.sleep(_RETRY_SECONDS)
            return await self._checked(hold, more)
        return None

    async def _checked(self, hold: Hold, more: Mapping[str, int]) -> Hold | None:
        try:
            await self._settled()
            await self._look()
            await self._settled()  # what was seen may have been a reason to shed more
            # Part of what others reserve may be taken, and so be seen, already: that errs on the
            # safe side, and not for long. The ledger is not told of it: nobody has to go for that.
            reserved = self._lock.pending()
            if any(self._room(pool) < reserved.get(pool, 0) for pool in more):
                hold.release()
                return None
            hold.reserve(more)
            # The reservation is enough for others now: they need not wait for the load.
            hold.unlock()
        except BaseException:
            hold.release()
            raise
        return hold
