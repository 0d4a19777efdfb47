"""One walk over the queue: who can start, who has to wait for whom, who must leave.

What is free, and what will be free once those who leave have gone, is handed out to the tickets
in the order of their turn, so nobody is overtaken by somebody who takes what he waits for. A
ticket that cannot be served by sending idle instances away takes nothing, and others may pass it,
until it is overdue: then busy ones drain for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm_router_mw.memory.ledger import Amounts, Ledger
from llm_router_mw.protocols import Candidate, EvictionPolicy
from llm_router_mw.scheduler.demand import asleep, candidate, demand, residue
from llm_router_mw.scheduler.instance import LEAVING, ON_ITS_WAY, Instance
from llm_router_mw.scheduler.queue import Ticket
from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.scheduler.victims import chosen
from llm_router_mw.types import InstanceKey, InstanceState, Price


@dataclass(frozen=True, slots=True)
class Option:
    """A way to have an instance awake."""

    price: Price | None
    needs: Amounts
    """What it takes besides what the instance has already."""
    wakes: bool = False
    """Whether it is the sleeper's own process that wakes, where it is."""

    @property
    def is_degraded(self) -> bool:
        return self.price is not None and self.price.placement.degraded


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is to be done for one instance of a ticket."""

    instance: Instance
    option: Option
    starts: bool
    """Whether there is room now; otherwise it waits for those who leave."""
    victims: tuple[Candidate, ...] = ()


class Admission:
    """The state of one walk."""

    def __init__(
        self,
        ledger: Ledger,
        residents: Iterable[Instance],
        policy: EvictionPolicy,
        now: float,
        is_settled: Callable[[Instance], bool],
        terms_of: Callable[[Instance], Terms],
    ) -> None:
        self._ledger = ledger
        self._policy = policy
        self._now = now
        self._is_settled = is_settled
        """Whether an instance has been resident for long enough to be a victim."""
        self._terms_of = terms_of
        """What will hold for an instance when those who wait for it use it."""
        self._residents = [each for each in residents if not each.terms.pinned]
        self._free = ledger.rooms()
        self._soon = dict(self._free)
        self._protected: set[InstanceKey] = set()
        self._provided: set[InstanceKey] = set()
        """What has been handed out for an earlier ticket that wants the same instance."""
        self._taken: set[InstanceKey] = set()
        for instance in residents:
            if instance.state in LEAVING:
                self._add_soon(_freed_by_leaving(instance, ledger))
        self._most = self._most_that_can_be_free()

    def is_hopeless(self, least: Iterable[Amounts]) -> bool:
        """Whether not even the *least* of some needs can be met by sending idle ones away."""
        most = self._most
        return all(
            any(amount > most[resource] for resource, amount in needs.items() if resource in most)
            for needs in least
        )

    def victims_of_shortage(self) -> list[Candidate]:
        """Return whom to send away where more is charged than there is; all, if not enough."""
        lacking = {
            resource: min(-amount, self._most[resource] - amount)
            for resource, amount in self._soon.items()
            if amount < 0 and self._most[resource] > amount
        }
        return self._victims(lacking, set(), True, busy_too=False) or [] if lacking else []

    def propose(self, ticket: Ticket, instances: Sequence[Instance]) -> list[Proposal] | None:
        """Return what is to be done for *ticket*, and hand out what that takes; None if nothing.

        *instances* are all that the ticket wants; those on their way need nothing.
        """
        missing = [
            each
            for each in instances
            if each.state not in ON_ITS_WAY and each.key not in self._provided
        ]
        keys = {each.key for each in instances}
        if len(missing) <= 1:
            proposals = self._each(ticket, missing, keys)
        else:
            before = dict(self._free), dict(self._soon), set(self._taken)
            proposals = self._each(ticket, missing, keys)
            if proposals is None:
                self._free, self._soon, self._taken = before
        if proposals is not None:
            self._protected |= keys
            self._provided.update(each.key for each in missing)
        return proposals

    def _each(
        self, ticket: Ticket, missing: Iterable[Instance], keys: set[InstanceKey]
    ) -> list[Proposal] | None:
        proposals = []
        for instance in missing:
            proposal = self._one(ticket, instance, keys)
            if proposal is None:
                return None
            self._hand_out(proposal)
            proposals.append(proposal)
        return proposals

    def _one(self, ticket: Ticket, instance: Instance, keys: set[InstanceKey]) -> Proposal | None:
        if instance.waits_for:
            return None
        choices = options(instance, self._terms_of(instance), self._ledger)
        good = [option for option in choices if not option.is_degraded]
        poor = [option for option in choices if option.is_degraded]
        # One that is leaving must have gone before it can come back.
        can_start = instance.state not in LEAVING
        for group in (good, poor):
            for option in group:
                if can_start and _fits(option.needs, self._free):
                    return Proposal(instance, option, starts=True)
            for option in group:
                if _fits(option.needs, self._soon):
                    return Proposal(instance, option, starts=False)
            # What is wanted by somebody before is no victim, nor is what comes with it.
            proposal = self._with_victims(instance, group, keys, ticket.is_overdue, busy_too=False)
            if proposal is None and ticket.is_overdue:
                proposal = self._with_victims(instance, group, keys, True, busy_too=True)
            if proposal is not None:
                return proposal
        return None

    def _with_victims(
        self,
        instance: Instance,
        group: Sequence[Option],
        keys: set[InstanceKey],
        is_overdue: bool,
        *,
        busy_too: bool,
    ) -> Proposal | None:
        best: Proposal | None = None
        for option in group:
            lacking = {
                resource: amount - self._soon[resource]
                for resource, amount in option.needs.items()
                if resource in self._soon and amount > self._soon[resource]
            }
            victims = self._victims(lacking, keys, is_overdue, busy_too)
            if victims is not None and (best is None or _cost(victims) < _cost(best.victims)):
                best = Proposal(instance, option, starts=False, victims=tuple(victims))
        return best

    def _victims(
        self, lacking: Amounts, keys: set[InstanceKey], is_overdue: bool, busy_too: bool
    ) -> list[Candidate] | None:
        possible = [
            each
            for each in self._residents
            if each.key not in self._taken
            and each.key not in self._protected
            and each.key not in keys
            and (is_overdue or self._is_settled(each))
        ]
        idle = [each for each in possible if is_victim(each)]
        busy = [each for each in possible if each.is_busy] if busy_too else []
        for mildly in (True, False):
            victims = chosen(
                self._policy,
                self._candidates(idle, mildly),
                self._candidates(busy, mildly),
                lacking,
                self._now,
            )
            if victims is not None:
                return victims
            if all(each.terms.evict_to == "stop" for each in (*idle, *busy)):
                break
        return None

    def _candidates(self, instances: Iterable[Instance], mildly: bool) -> list[Candidate]:
        return [
            candidate(
                each,
                self._ledger.charge_of(each.key),
                each.terms.evict_to if mildly else "stop",
            )
            for each in instances
        ]

    def _hand_out(self, proposal: Proposal) -> None:
        for victim in proposal.victims:
            self._taken.add(victim.instance)
            self._add_soon(victim.freed)
        for resource, amount in proposal.option.needs.items():
            if resource in self._free:
                self._free[resource] -= amount
                self._soon[resource] -= amount
                self._most[resource] -= amount

    def _add_soon(self, amounts: Amounts) -> None:
        for resource, amount in amounts.items():
            if resource in self._soon:
                self._soon[resource] += amount

    def _most_that_can_be_free(self) -> dict[str, int]:
        most = dict(self._soon)
        for instance in self._residents:
            if is_victim(instance):
                for resource, amount in self._ledger.charge_of(instance.key).items():
                    if resource in most:
                        most[resource] += amount
        return most


def is_victim(instance: Instance) -> bool:
    """Whether *instance* could be sent down a step now without hurting a request."""
    return instance.is_idle or instance.state is InstanceState.SLEEPING


def options(instance: Instance, terms: Terms, ledger: Ledger) -> list[Option]:
    """Return the ways to have *instance* awake on *terms*, the best first."""
    held = ledger.charge_of(instance.key)
    found = []
    sleeps = instance.state is InstanceState.SLEEPING
    if instance.state is InstanceState.FALLING_ASLEEP:
        # It will wake in the process that it has.
        sleeps, held = True, asleep(held, residue(instance.price, instance.level or "full"))
    if sleeps:
        needs = _needs(instance, instance.price, terms, ledger)
        more = {resource: amount - held.get(resource, 0) for resource, amount in needs.items()}
        found.append(Option(instance.price, more, wakes=True))
    for price in instance.prices or (None,):
        if sleeps and price == instance.price:
            continue
        found.append(Option(price, _needs(instance, price, terms, ledger)))
    return found


def _needs(instance: Instance, price: Price | None, terms: Terms, ledger: Ledger) -> Amounts:
    needs = demand(price, terms, instance.surcharge)
    if instance.surcharge == 1.0:
        return needs
    # A second try may ask for more than there is: then it is made with all that there is.
    exact = demand(price, terms)
    return {
        resource: max(exact[resource], min(amount, ledger.capacity(resource)))
        for resource, amount in needs.items()
    }


def _fits(needs: Amounts, room: Mapping[str, int]) -> bool:
    return all(amount <= room[resource] for resource, amount in needs.items() if resource in room)


def _cost(victims: Sequence[Candidate]) -> tuple[float, int]:
    """What it costs to have *victims* back: seconds of loading, then how many they are."""
    return sum(victim.load_seconds for victim in victims), len(victims)


def _freed_by_leaving(instance: Instance, ledger: Ledger) -> Amounts:
    charge = ledger.charge_of(instance.key)
    step = instance.level or "full" if instance.state is InstanceState.FALLING_ASLEEP else "stop"
    if instance.state is InstanceState.DRAINING:
        step = instance.next_step
    picture = candidate(instance, charge, step)
    return picture.freed
