"""What the residents could give for others, kept up to date as they change.

Who makes room begins with these sums, so that he need not look at every resident each time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

from llm_router_mw.memory.ledger import Amounts, Ledger
from llm_router_mw.protocols import Candidate
from llm_router_mw.scheduler.demand import candidate
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.states import FALLING_ASLEEP, LEAVING, LOADED, SLEEPING, STOPPING
from llm_router_mw.types import InstanceKey


class Pile:
    """Instances of one kind, and what they give together."""

    def __init__(self) -> None:
        self.instances: dict[InstanceKey, Instance] = {}
        """Those that changed last are at the end."""
        self._gives: dict[InstanceKey, Amounts] = {}
        self._total: dict[str, int] = {}

    def put(self, instance: Instance, gives: Amounts) -> None:
        """Take in *instance*, which is in no pile, and what it *gives*."""
        self.instances[instance.key] = instance
        self._gives[instance.key] = gives
        total = self._total
        for resource, amount in gives.items():
            total[resource] = total.get(resource, 0) + amount

    def given_by(self, instance: Instance) -> Amounts | None:
        """Return what *instance*, which is in this pile, gives."""
        return self._gives[instance.key]

    def move_last(self, instance: Instance) -> None:
        """Note that *instance*, which is in this pile, has changed but for what it gives."""
        self.instances[instance.key] = self.instances.pop(instance.key)

    def drop(self, instance: Instance) -> None:
        """Let *instance*, which is in this pile, be in none."""
        del self.instances[instance.key]
        for resource, amount in self._gives.pop(instance.key).items():
            self._total[resource] -= amount

    def but(self, staying: Set[InstanceKey]) -> list[Instance]:
        """Return all but those *staying*."""
        instances = self.instances
        if instances.keys().isdisjoint(staying):  # as is usual
            return list(instances.values())
        return [each for key, each in instances.items() if key not in staying]

    def beside(self, room: Mapping[str, int], without: Collection[InstanceKey]) -> dict[str, int]:
        """Return *room* with all that the pile gives, but for what those *without* do."""
        total = self._total
        most = {resource: amount + total.get(resource, 0) for resource, amount in room.items()}
        for key in without:
            for resource, amount in self._gives.get(key, {}).items():
                if resource in most:
                    most[resource] -= amount
        return most


class Supply:
    """Sorts the residents by what can be had of them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.idle = Pile()
        """Those that may be sent away, sleepers among them, and all that they hold."""
        self.busy = Pile()
        """Those that may be made to drain, and all that they hold."""
        self.leaving = Pile()
        """Those that leave or fall asleep, and what that will free."""
        self._pile_of: dict[Instance, Pile] = {}
        self._changed: dict[Instance, None] = {}

    def note(self, instance: Instance) -> None:
        """Take note that something about *instance* changes in this step."""
        self._changed[instance] = None

    def catch_up(self) -> None:
        """Let the piles be as things are now."""
        changed = self._changed
        if changed:
            for instance in changed:
                self._sort(instance)
            changed.clear()

    def shown(self, instance: Instance) -> Candidate:
        """Return the picture of a victim that goes as far down as it is to, if that is enough."""
        seen = instance.shown
        if seen is None:
            charge = self._ledger.charge_of(instance.key)
            seen = instance.shown = candidate(instance, charge, instance.terms.evict_to)
        return seen

    def _sort(self, instance: Instance) -> None:
        instance.shown = None
        pile, gives = self._belongs(instance)
        before = self._pile_of.get(instance)
        if before is not None:
            if pile is before and before.given_by(instance) is gives:
                pile.move_last(instance)  # as after each request for a busy one
                return
            before.drop(instance)
        if pile is not None:
            pile.put(instance, gives)
            self._pile_of[instance] = pile
        elif before is not None:
            del self._pile_of[instance]

    def _belongs(self, instance: Instance) -> tuple[Pile | None, Amounts]:
        """Return the pile of *instance* as it is now, and what it gives there."""
        charge = self._ledger.charge_of(instance.key)
        state = instance.state
        if state is LOADED or state is SLEEPING:
            if instance.terms.pinned:
                return None, charge
            return self.busy if instance.leases else self.idle, charge
        if state in LEAVING:
            return self.leaving, _freed_by_leaving(instance, charge)
        return None, charge


def _freed_by_leaving(instance: Instance, charge: Amounts) -> Amounts:
    if instance.state is FALLING_ASLEEP:
        return candidate(instance, charge, instance.level or "full").freed
    if instance.state is STOPPING or instance.next_step == "stop":
        return charge
    return candidate(instance, charge, instance.next_step).freed
