"""Looks at the machine's memory now and then, for the scheduler's ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio
import anyio.to_thread

from llm_router_mw.memory.inventory import Inventory, Look
from llm_router_mw.types import Device

ReadPids = Callable[[], Sequence[int]]


class MemoryWatcher:
    """Holds the last look, and takes a new one every few seconds."""

    def __init__(
        self,
        inventory: Inventory,
        pids: ReadPids,
        on_look: Callable[[Look], None],
        *,
        every_seconds: float,
    ) -> None:
        self._inventory = inventory
        self._pids = pids
        """Returns our processes."""
        self._on_look = on_look
        self._every_seconds = every_seconds
        self._devices: tuple[Device, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices, as they were last seen."""
        return self._devices

    async def look(self) -> None:
        """Look now."""
        look = await anyio.to_thread.run_sync(self._inventory.look, tuple(self._pids()))
        self._devices = look.devices
        self._on_look(look)

    async def held_by(self, pid: int) -> Mapping[str, int]:
        """Return what one process holds, by device id."""
        return await anyio.to_thread.run_sync(self._inventory.used_bytes, (pid,))

    async def run(self) -> None:
        """Look every few seconds, as long as the router runs."""
        while True:
            await anyio.sleep(self._every_seconds)
            await self.look()
