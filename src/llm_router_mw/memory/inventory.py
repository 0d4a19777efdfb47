"""One list of devices from all probes, and one look at the memory pools that they draw from."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct, structs

from llm_router_mw.faults import Faults
from llm_router_mw.memory.allowance import Allowance, allowance_bytes, unknown_names
from llm_router_mw.memory.pools import by_pool
from llm_router_mw.protocols import DeviceProbe
from llm_router_mw.types import HOST, Device, InstanceKey, PoolReading
from llm_router_mw.units import MIB

logger = logging.getLogger("llm_router_mw.memory")

DEFAULT_MARGIN_MIB = 1024

T = TypeVar("T")


class Look(Struct, frozen=True, kw_only=True):
    """The devices, and the pools that they draw from, at one moment."""

    devices: tuple[Device, ...]
    readings: Mapping[str, PoolReading]
    """By pool."""
    held: Mapping[InstanceKey, Mapping[str, int]] = {}
    """What each instance was seen to hold of each pool; what no probe knows is left out."""


class Inventory:
    """Asks the probes. All methods may take milliseconds: call them off the event loop."""

    def __init__(
        self,
        probes: Sequence[DeviceProbe],
        margin: Allowance = DEFAULT_MARGIN_MIB,
        limit: Allowance | None = None,
        faults: Faults | None = None,
    ) -> None:
        """Ask *probes*; where two know a device, the first has the say.

        *margin* and *limit* are the options ``models_memory_margin`` and ``memory_limit``. A probe
        that fails is told to *faults*, and what it would have said is left out.
        """
        self._probes = probes
        self._faults = faults or Faults()
        self._margin = margin
        self._limit = limit
        self._said: set[str] = set()

    def devices(self) -> tuple[Device, ...]:
        """Return all devices, those of one kind in llama.cpp's order."""
        found: list[Device] = []
        for probe in self._probes:
            found = _merged(
                found, self._asked(probe, lambda each: _devices(each.inventory())) or ()
            )
        return tuple(_pooled(found))

    def used_bytes(self, pids: Sequence[int]) -> dict[str, int]:
        """Return what *pids* hold together, by device id; what no probe knows is left out."""
        found: dict[str, int] = {}
        for probe in self._probes:
            told = self._asked(probe, lambda each: _numbers(each.used_bytes(pids)))
            found = {**(told or {}), **found}
        return found

    def _asked(self, probe: DeviceProbe, question: Callable[[DeviceProbe], T]) -> T | None:
        """Return what *probe* says to *question*; None if it fails."""
        try:
            return question(probe)
        except Exception as error:
            self._faults.add("device probe", probe.name, error)
            return None

    def look(
        self,
        processes: Mapping[InstanceKey, int] = {},
        told: Mapping[str, int] = {},
        besides: Mapping[str, int] = {},
    ) -> Look:
        """Return the devices, a reading of each pool, and what each instance holds.

        *processes* are those of our instances. *told* says, by device id, what they hold as far as
        they told it themselves; it is used where no probe can see it. *besides* is what else we
        hold, by pool.
        """
        # Seen before and after: a process that ends or loads meanwhile must not pass for a
        # program of somebody else's that takes its place.
        before = self.used_bytes(tuple(processes.values()))
        devices = self.devices()
        used = {key: self.used_bytes((pid,)) for key, pid in processes.items()}
        for option, value in (("margin", self._margin), ("limit", self._limit)):
            for name in sorted(unknown_names(value, devices)):
                self._warn(f"a memory {option} is set for {name!r}, and there is no such device")
        after: Counter[str] = Counter()
        for held in used.values():
            after.update(held)
        seen = {key: max(before.get(key, 0), after[key]) for key in {**before, **after}}
        ours = by_pool({**told, **seen}, devices)
        pools = dict.fromkeys(device.pool for device in devices)
        return Look(
            devices=devices,
            readings={
                pool: self._reading(pool, devices, ours.get(pool, 0) + besides.get(pool, 0))
                for pool in pools
            },
            held={key: by_pool(held, devices) for key, held in used.items()},
        )

    def _reading(self, pool: str, devices: Sequence[Device], ours_bytes: int) -> PoolReading:
        members = [device for device in devices if device.pool == pool]
        owner = next((device for device in members if device.id == pool), members[0])
        margin = allowance_bytes(self._margin, owner)
        return PoolReading(
            total_bytes=owner.total_bytes,
            free_bytes=owner.free_bytes,
            ours_bytes=ours_bytes,
            margin_bytes=DEFAULT_MARGIN_MIB * MIB if margin is None else margin,
            limit_bytes=allowance_bytes(self._limit, owner),
        )

    def _warn(self, message: str) -> None:
        """Say *message*, the first time."""
        if message not in self._said:
            self._said.add(message)
            logger.warning("%s", message)


def _devices(said: Sequence[Device]) -> list[Device]:
    """Return what a probe has *said*, which anybody may have written.

    Raises:
        TypeError: it is something else.
    """
    found = list(said)
    if not all(isinstance(each, Device) for each in found):
        raise TypeError(f"it said that there is {found!r}; only a Device is a device")
    return found


def _numbers(said: Mapping[str, int]) -> dict[str, int]:
    """Return what a probe has *said* of bytes by device.

    Raises:
        TypeError: it is something else.
    """
    found = dict(said)
    if not all(isinstance(n_bytes, int) for n_bytes in found.values()):
        raise TypeError(f"it said that processes hold {found!r}; bytes are whole numbers")
    return found


def _merged(known: Sequence[Device], found: Sequence[Device]) -> list[Device]:
    """Return *known* with what is new in *found*: another id, at another address."""
    merged = {device.id: device for device in known}
    for device in found:
        same = [
            each
            for each in known
            if each.id == device.id or (device.pci_id and each.pci_id == device.pci_id)
        ]
        if not same:
            # The second of one probe is the same card seen by another backend.
            merged.setdefault(device.id, device)
        elif len(same) == 1 and not same[0].backend_name:
            merged[same[0].id] = structs.replace(same[0], backend_name=device.backend_name)
    return list(merged.values())


def _pooled(devices: Sequence[Device]) -> list[Device]:
    """Tell the devices that share the host's pool what there is in it."""
    host = next((device for device in devices if device.id == HOST), None)
    return [
        _sharing(device, host) if device.pool == HOST and device.id != HOST else device
        for device in devices
    ]


def _sharing(device: Device, host: Device | None) -> Device:
    if host is None or not host.total_bytes:
        # A limit of its own is better than none.
        return structs.replace(device, pool=device.id) if device.total_bytes else device
    if not device.total_bytes:
        return structs.replace(device, total_bytes=host.total_bytes, free_bytes=host.free_bytes)
    return structs.replace(device, free_bytes=min(device.free_bytes, host.free_bytes))
