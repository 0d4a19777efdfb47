"""Looks at the machine's memory now and then, for the scheduler's ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import anyio
import anyio.to_thread
from msgspec import structs

from llm_router_mw.memory.inventory import Inventory, Look
from llm_router_mw.types import Device, InstanceKey, PoolReading

ReadProcesses = Callable[[], Mapping[InstanceKey, int]]
OnLook = Callable[[Mapping[str, PoolReading], Mapping[InstanceKey, Mapping[str, int]]], None]


class MemoryWatcher:
    """Holds the last look, and takes a new one every few seconds."""

    def __init__(
        self,
        inventory: Inventory,
        processes: ReadProcesses,
        on_look: OnLook,
        *,
        pending: Callable[[], Mapping[str, int]],
        every_seconds: float,
    ) -> None:
        self._inventory = inventory
        self._processes = processes
        """Returns the process of each instance that has one."""
        self._on_look = on_look
        """Told what was read of the pools, and what each instance was seen to hold of them."""
        self._pending = pending
        """Returns by pool what other routers on the machine are about to take."""
        self._every_seconds = every_seconds
        self._devices: tuple[Device, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices, as they were last seen."""
        return self._devices

    async def look_strictly(self) -> None:
        """Look now, and take what others are about to take for taken."""
        await self._look(self._pending())

    async def look(self) -> None:
        """Look now. What others load is partly seen already, so it is not counted twice."""
        await self._look({})

    async def _look(self, pending: Mapping[str, int]) -> None:
        processes = dict(self._processes())
        look, held = await anyio.to_thread.run_sync(self._read, processes)
        self._devices = look.devices
        readings = {
            pool: structs.replace(
                reading, free_bytes=max(0, reading.free_bytes - pending.get(pool, 0))
            )
            for pool, reading in look.readings.items()
        }
        self._on_look(readings, held)

    def _read(
        self, processes: Mapping[InstanceKey, int]
    ) -> tuple[Look, dict[InstanceKey, dict[str, int]]]:
        look = self._inventory.look(tuple(processes.values()))
        pools = {device.id: device.pool for device in look.devices}
        held: dict[InstanceKey, dict[str, int]] = {}
        for key, pid in processes.items():
            by_pool: Counter[str] = Counter()
            for device, size in self._inventory.used_bytes((pid,)).items():
                by_pool[pools.get(device, device)] += size
            held[key] = dict(by_pool)
        return look, held

    async def held_by(self, pid: int) -> Mapping[str, int]:
        """Return what one process holds, by device id."""
        return await anyio.to_thread.run_sync(self._inventory.used_bytes, (pid,))

    async def run(self) -> None:
        """Look every few seconds, as long as the router runs."""
        while True:
            await anyio.sleep(self._every_seconds)
            await self.look()
