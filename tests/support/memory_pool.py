"""A small pool of host memory, as one device, in which real workers hold real memory."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from llm_router_mw import Router
from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.memory.processes import process_memory, proportional_bytes
from llm_router_mw.protocols import DeviceProbe
from llm_router_mw.types import HOST, Device
from tests.support.processes import descendants
from tests.support.real_router import Story, real_router
from tests.support.sized_models import MIB

UNIT = 8 * MIB
"""A worker's process alone takes about four of them."""
POOL_UNITS = 120
MARGIN_UNITS = 4
MARGIN_MIB = MARGIN_UNITS * UNIT // MIB
_SAMPLE_SECONDS = 0.02


class Pool:
    """A plugin that says that there is no other memory than *total_bytes* on the host.

    All workers below this process hold theirs of it, whichever router they are of.
    """

    name = "pool"

    def __init__(self, units: int = POOL_UNITS) -> None:
        self.total_bytes = units * UNIT
        self.eaten_bytes = 0
        """What another program holds."""
        self.looks = 0
        """How often somebody looked at what is free."""

    @hookimpl
    def llm_router_register_device_probes(self, config: RouterConfig) -> list[DeviceProbe]:
        return [self]

    def inventory(self) -> Sequence[Device]:
        self.looks += 1
        free = self.total_bytes - self.eaten_bytes - _private_bytes(worker_pids())
        return [
            Device(
                id=HOST,
                pool=HOST,
                kind="host",
                name="a small pool",
                total_bytes=self.total_bytes,
                free_bytes=max(0, free),
            )
        ]

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        return {HOST: _private_bytes(pids)}


@asynccontextmanager
async def pooled_router(pool: Pool, *plugins: object, **options: Any) -> AsyncIterator[Router]:
    """Run a router whose workers may have what there is in *pool*, less the margin."""
    small = {"n_batch": 64, "models_memory_margin": MARGIN_MIB, "watch_memory_seconds": 0.2}
    async with real_router(pool, *plugins, **{**small, **options}) as router:
        yield router


def needed_units(story: Story, model: str) -> float:
    """Return what the last load of *model* was thought to need."""
    needed = [
        event.data["memory"][HOST]["needed_bytes"]
        for event in story.events
        if event.model == model and "memory" in event.data
    ]
    return float(needed[-1] / UNIT)


class Samples:
    """What all workers together were seen to hold, pages of mapped files and all (PSS)."""

    def __init__(self) -> None:
        self.most_bytes = 0
        self.count = 0

    def check(self, pool: Pool) -> None:
        """Fail if ever the margin of *pool* was not free."""
        assert self.count >= 5
        assert self.most_bytes + MARGIN_UNITS * UNIT <= pool.total_bytes

    def take(self) -> None:
        pids = worker_pids()
        held = sum(proportional_bytes(pid) or 0 for pid in pids)
        # Whoever came or went meanwhile was counted beside those whose memory he got or gave.
        if worker_pids() == pids:
            self.most_bytes = max(self.most_bytes, held)
            self.count += 1


@contextmanager
def sampled() -> Iterator[Samples]:
    """Take samples of the workers' memory, in a thread, until the ``with`` block ends."""
    samples, over = Samples(), threading.Event()

    def sample() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            samples.take()

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def worker_pids() -> list[int]:
    """Return the workers below this process; one that is just being forked is none yet."""
    return [pid for pid in descendants(os.getpid()) if b"llm_router_mw.worker" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _private_bytes(pids: Sequence[int]) -> int:
    found = (process_memory(pid) for pid in pids)
    return sum(memory.private_bytes for memory in found if memory is not None)
