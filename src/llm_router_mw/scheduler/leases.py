"""The leases that are out, and when each must be back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile

from msgspec import Struct

from llm_router_mw.scheduler.instance import Instance


class Lease(Struct, frozen=True, gc=False):
    """A granted right to use one instance."""

    id: int
    instance: Instance
    model: str
    keep_alive_seconds: float | None
    expires_at_seconds: float


class Leases:
    """All last equally long, so they run out in the order in which they were given."""

    def __init__(self, max_lease_seconds: float, on_use: Callable[[Instance], None]) -> None:
        self._max_lease_seconds = max_lease_seconds
        self._on_use = on_use
        """Told when a lease of an instance begins or ends."""
        self._leases: OrderedDict[int, Lease] = OrderedDict()
        """In the order in which they were given."""
        self._next_id = 1

    def give(
        self, instance: Instance, model: str, keep_alive_seconds: float | None, now: float
    ) -> int:
        """Return the id of a new lease of *instance*, asked for as *model*."""
        lease_id = self._next_id
        self._next_id += 1
        self._leases[lease_id] = Lease(
            lease_id, instance, model, keep_alive_seconds, now + self._max_lease_seconds
        )
        instance.leases.add(lease_id)
        instance.used(now)
        self._on_use(instance)
        return lease_id

    def end(self, lease_id: int, now: float) -> Lease | None:
        """Take a lease back; None if it has ended before."""
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            lease.instance.leases.discard(lease_id)
            lease.instance.last_used_seconds = now
            self._on_use(lease.instance)
        return lease

    def expired(self, now: float) -> list[Lease]:
        """Return the leases that are out for too long."""
        return list(takewhile(lambda each: each.expires_at_seconds <= now, self._leases.values()))

    @property
    def next_expiry_seconds(self) -> float | None:
        """When the oldest lease runs out."""
        oldest = next(iter(self._leases.values()), None)
        return None if oldest is None else oldest.expires_at_seconds
