"""Looks at the machine's memory now and then, for the scheduler's ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

import anyio
import anyio.to_thread

from llm_router_mw.memory.inventory import Inventory
from llm_router_mw.types import Device, InstanceKey, PoolReading

logger = logging.getLogger("llm_router_mw.memory")

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
        told: Callable[[], Mapping[str, int]],
        moving: Callable[[], Collection[str]],
        besides: Callable[[], Mapping[str, int]],
        every_seconds: float,
    ) -> None:
        self._inventory = inventory
        self._processes = processes
        """Returns the process of each instance that has one."""
        self._on_look = on_look
        """Told what was read of the pools, and what each instance was seen to hold of them."""
        self._told = told
        """Returns by pool what our processes hold by their own account; not the host's."""
        self._moving = moving
        """Returns the pools of which our processes just take memory, or give it back."""
        self._besides = besides
        """Returns by pool what we hold besides instances."""
        self._every_seconds = every_seconds
        self._devices: tuple[Device, ...] = ()
        self._readings: Mapping[str, PoolReading] = {}
        self._complained = False

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices, as they were last seen."""
        return self._devices

    async def look(self) -> None:
        """Look now."""
        processes, told = dict(self._processes()), dict(self._told())
        moving, besides = set(self._moving()), dict(self._besides())
        try:
            look = await anyio.to_thread.run_sync(self._inventory.look, processes, told, besides)
        except Exception:  # a probe's answer of another shape must not end the router
            self._complain()
            return
        self._devices = look.devices
        # Where no probe tells what processes hold, what ours take just now looks like others'.
        unseen = moving.difference(*look.held.values())
        known = {pool: self._readings[pool] for pool in unseen & self._readings.keys()}
        self._readings = {**look.readings, **known}
        self._on_look(self._readings, look.held)

    def _complain(self) -> None:
        """Say once that memory could not be read; the last look stands until it can."""
        if not self._complained:
            self._complained = True
            logger.exception("memory could not be looked at; what was seen last is gone by")

    async def held_by(self, pid: int) -> Mapping[str, int]:
        """Return what one process holds, by device id."""
        return await anyio.to_thread.run_sync(self._inventory.used_bytes, (pid,))

    async def run(self) -> None:
        """Look every few seconds, as long as the router runs."""
        while True:
            await anyio.sleep(self._every_seconds)
            await self.look()
