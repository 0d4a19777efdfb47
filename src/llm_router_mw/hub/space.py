"""Room on the disk, shared by what is fetched at the same time."""

from __future__ import annotations

from typing import Final

from llm_router_mw.errors import DiskFullError
from llm_router_mw.hub.cache import HubCache
from llm_router_mw.hub.files import Plan
from llm_router_mw.units import MIB

SPARE_BYTES: Final = 256 * 1024 * 1024
"""What a download leaves free: a system with a full disk does strange things."""


class DiskSpace:
    """Knows what downloads under way have yet to write."""

    def __init__(self, cache: HubCache) -> None:
        self._cache = cache
        self._pending: dict[str, Plan] = {}

    def take(self, name: str, plan: Plan) -> None:
        """Count what *plan* has yet to write, until it is given back. Reads the disk.

        Raises:
            DiskFullError: there is no room for that.
            OSError: the cache cannot be made or looked at.
        """
        needed = self._cache.missing_bytes(plan)
        others = sum(map(self._cache.missing_bytes, list(self._pending.values())))
        available = max(0, self._cache.free_bytes() - others - SPARE_BYTES)
        if needed > available:
            raise DiskFullError(
                f"{name} needs {needed / MIB:.0f} MiB more on the disk of the hub's cache, and "
                f"{available / MIB:.0f} MiB can be had; make room, or set HF_HUB_CACHE to "
                "another directory",
                needed_bytes=needed,
                available_bytes=available,
            )
        self._pending[name] = plan

    def give_back(self, name: str) -> None:
        """Count it no longer."""
        self._pending.pop(name, None)
