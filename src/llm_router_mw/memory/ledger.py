"""Who is charged for what: memory pools, and everything else that there is only so much of.

A resource is a name. Memory pools are counted in bytes; ``slots`` and ``workers`` in instances;
an exclusive group is a resource of which there is one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from llm_router_mw.types import InstanceKey, PoolReading

Amounts = Mapping[str, int]
"""By resource."""
Holder = InstanceKey | str
"""An instance, or by its name something else of ours that takes memory: see ``hold``."""

_NOTHING: Amounts = {}
_UNLIMITED = sys.maxsize


class Ledger:
    """The charges of all holders against the capacity of each resource."""

    def __init__(self) -> None:
        self._capacity: dict[str, int] = {}
        self._charged: dict[str, int] = {}
        self._charges: dict[Holder, Amounts] = {}
        self._reserved: dict[InstanceKey, Amounts] = {}
        """What each instance is charged with at least."""
        self._sheddable: dict[str, Amounts] = {}
        """What holders are charged with that give it back when it is needed, by their names."""
        self._fixed: dict[str, Amounts] = {}
        """What those are charged with who do not."""
        self._readings: dict[str, PoolReading] = {}

    # What there is

    def limit(self, resource: str, capacity: int) -> None:
        """Let there be *capacity* of *resource*; what is never limited is without end."""
        self._capacity[resource] = capacity

    def observe(self, readings: Mapping[str, PoolReading]) -> None:
        """Take the last look at some pools as the truth about them."""
        for pool, reading in readings.items():
            self._readings[pool] = reading
            # A pool of which nothing is known is limited by nothing: 0 is no answer.
            if reading.total_bytes > 0 or reading.limit_bytes is not None:
                self._capacity[pool] = _capacity(reading)
            else:
                self._capacity.pop(pool, None)

    def capacity(self, resource: str) -> int:
        """Return how much there is for instances of *resource*."""
        capacity = self._capacity.get(resource)
        if capacity is None:
            return _UNLIMITED
        return capacity - sum(amounts.get(resource, 0) for amounts in self._fixed.values())

    def most(self, resource: str) -> int:
        """Return how much there could ever be for instances of *resource*.

        Everybody may give back what they hold; what there is in all, the margin and the cap stay
        as they are.
        """
        reading = self._readings.get(resource)
        if reading is None or not reading.total_bytes:
            return self._capacity.get(resource, _UNLIMITED)
        return reading.most_bytes

    def reading(self, pool: str) -> PoolReading | None:
        """Return the last look at *pool*."""
        return self._readings.get(pool)

    # Who has it

    def charge(self, instance: InstanceKey, amounts: Amounts) -> None:
        """Charge *instance* with *amounts*, and with nothing else."""
        if amounts:
            self._reserved[instance] = amounts
        else:
            self._reserved.pop(instance, None)
        self._set(instance, amounts)

    def see(self, instance: InstanceKey, held: Amounts) -> None:
        """Charge *instance* with what it was seen to hold, where that is more than reserved."""
        reserved = self._reserved.get(instance, _NOTHING)
        more = {pool: size for pool, size in held.items() if size > reserved.get(pool, 0)}
        self._set(instance, {**reserved, **more})

    def hold(self, name: str, amounts: Amounts, *, sheddable: bool = False) -> None:
        """Charge with *amounts* what is no instance; *sheddable* is what it gives back if asked."""
        self._sheddable.pop(name, None)
        self._fixed.pop(name, None)
        if amounts:
            (self._sheddable if sheddable else self._fixed)[name] = amounts
        self._set(name, amounts)

    def _set(self, holder: Holder, amounts: Amounts) -> None:
        charged = self._charged
        for resource, amount in self._charges.get(holder, _NOTHING).items():
            charged[resource] -= amount
        for resource, amount in amounts.items():
            charged[resource] = charged.get(resource, 0) + amount
        if amounts:
            self._charges[holder] = amounts
        else:
            self._charges.pop(holder, None)

    def charge_of(self, holder: Holder) -> Amounts:
        """Return what *holder* is charged with."""
        return self._charges.get(holder, _NOTHING)

    def charged(self, resource: str) -> int:
        """Return what all together are charged with of *resource*."""
        return self._charged.get(resource, 0)

    # What is left

    def room(self, resource: str) -> int:
        """Return how much of *resource* nobody has; negative where others took what we had."""
        capacity = self._capacity.get(resource)
        return _UNLIMITED if capacity is None else capacity - self._charged.get(resource, 0)

    @property
    def is_overdrawn(self) -> bool:
        """Whether more is charged of something than there is, though all shed what they can."""
        charged = self._charged
        for resource, capacity in self._capacity.items():
            if charged.get(resource, 0) > capacity:
                return any(room < 0 for room in self.rooms().values())
        return False

    def rooms(self) -> dict[str, int]:
        """Return what can be had of each limited resource: what can be shed is as good as free."""
        charged = self._charged
        rooms = {
            resource: capacity - charged.get(resource, 0)
            for resource, capacity in self._capacity.items()
        }
        for amounts in self._sheddable.values():
            for resource, amount in amounts.items():
                if resource in rooms:
                    rooms[resource] += amount
        return rooms

    def shed(self) -> list[tuple[str, str, int]]:
        """Charge those who can shed no longer with what is charged beyond what there is.

        Returns:
            Who has to give back what: holder, resource and amount.
        """
        asked: list[tuple[str, str, int]] = []
        if not self._sheddable:  # this is asked in each step
            return asked
        for name, amounts in list(self._sheddable.items()):
            left = dict(amounts)
            for resource, amount in amounts.items():
                less = min(amount, -self.room(resource))
                if less > 0:
                    asked.append((name, resource, less))
                    left[resource] -= less
            if left != amounts:
                self.hold(name, left, sheddable=True)
        return asked


def _capacity(reading: PoolReading) -> int:
    if reading.total_bytes > 0:
        return reading.capacity_bytes
    assert reading.limit_bytes is not None
    return reading.limit_bytes
