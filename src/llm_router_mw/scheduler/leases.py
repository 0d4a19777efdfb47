"""The leases that are out, and when each must be back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llm_router_mw.scheduler.instance import Instance

_FEW = 16


@dataclass(frozen=True, slots=True)
class Lease:
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
        self._leases: dict[int, Lease] = {}
        self._by_age: deque[int] = deque()
        """Those that have ended are taken out when they are at the front, or too many."""
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
        self._by_age.append(lease_id)
        instance.leases.add(lease_id)
        instance.used(now)
        self._on_use(instance)
        return lease_id

    def end(self, lease_id: int, now: float) -> Lease | None:
        """Take a lease back; None if it has ended before."""
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            if len(self._by_age) > 2 * len(self._leases) + _FEW:
                # Those that ended behind one that lasts: each was looked at once for as many.
                self._by_age = deque(self._leases)
            lease.instance.leases.discard(lease_id)
            lease.instance.last_used_seconds = now
            self._on_use(lease.instance)
        return lease

    def expired(self, now: float) -> Iterator[Lease]:
        """Return the leases that are out for too long."""
        while (expiry := self.next_expiry_seconds) is not None and expiry <= now:
            yield self._leases[self._by_age.popleft()]

    @property
    def next_expiry_seconds(self) -> float | None:
        """When the oldest lease runs out."""
        while self._by_age:
            lease = self._leases.get(self._by_age[0])
            if lease is not None:
                return lease.expires_at_seconds
            self._by_age.popleft()
        return None
