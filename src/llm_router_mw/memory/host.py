"""The host's own memory: what there is, what is free, and what our processes hold of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from llm_router_mw.memory.cgroup import memory_limits
from llm_router_mw.memory.processes import private_bytes, sizes
from llm_router_mw.types import HOST, Device

_NAME = "host memory"


class HostProbe:
    """Reads ``/proc`` and the limits of cgroups.

    Other systems than Linux tell nothing here: total and free are 0, which is unknown.
    """

    name = "host"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def inventory(self) -> Sequence[Device]:
        """Return the host as one device."""
        try:
            known = sizes((self._root / "proc/meminfo").read_text())
        except OSError:
            known = {}
        if "MemTotal" not in known or "MemAvailable" not in known:
            return [self._device(0, 0, "this system does not tell how much memory is free")]
        total, free = known["MemTotal"], known["MemAvailable"]
        limits = memory_limits(self._root)
        least_total = min([total, *(limit.total_bytes for limit in limits)])
        least_free = min([free, *(limit.free_bytes for limit in limits)])
        limited = least_total < total
        return [self._device(least_total, least_free, "limited by a cgroup" if limited else "")]

    def used_bytes(self, pids: Sequence[int]) -> Mapping[str, int]:
        """Return what *pids* hold of it that is not clean pages of files."""
        held = private_bytes(pids, self._root)
        return {} if held is None else {HOST: held}

    @staticmethod
    def _device(total_bytes: int, free_bytes: int, note: str) -> Device:
        return Device(
            id=HOST,
            pool=HOST,
            kind="host",
            name=_NAME,
            total_bytes=total_bytes,
            free_bytes=free_bytes,
            note=note,
        )
