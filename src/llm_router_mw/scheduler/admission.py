"""One walk over the queue: who can start, who has to wait for whom, who must leave.

What is free, and what will be free once those who leave have gone, is handed out to the tickets
in the order of their turn, so nobody is overtaken by somebody who takes what he waits for. A
ticket that cannot be served by sending idle instances away takes nothing, and others may pass it,
until it is overdue: then busy ones drain for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from llm_router_mw.memory.ledger import Amounts, Ledger
from llm_router_mw.protocols import Candidate
from llm_router_mw.scheduler.company import Company
from llm_router_mw.scheduler.demand import asleep, candidate, needs_of, residue
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.option import Choices, Option
from llm_router_mw.scheduler.queue import Ticket
from llm_router_mw.scheduler.states import (
    ABSENT,
    ASLEEP,
    DRAINING,
    LEAVING,
    ON_ITS_WAY,
    SLEEPING,
    STOPPING,
)
from llm_router_mw.scheduler.supply import Supply
from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.scheduler.victims import Trusted, chosen
from llm_router_mw.types import InstanceKey, Price


class Proposal(Struct, frozen=True, gc=False):
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
        supply: Supply,
        policy: Trusted,
        now: float,
        is_settled: Callable[[Instance], bool] | None,
        terms_of: Callable[[Instance], Terms],
        company: Company | None,
    ) -> None:
        self._ledger = ledger
        self._supply = supply
        self._policy = policy
        self._now = now
        self._is_settled = is_settled
        """Whether an instance has been resident for long enough to be a victim; None: all have."""
        self._terms_of = terms_of
        """What will hold for an instance when those who wait for it use it."""
        self._company = company
        """Who goes with whom; None if everybody goes alone."""
        supply.catch_up()
        self._free = ledger.rooms()
        self._soon = supply.leaving.beside(self._free, ())
        self._most: dict[str, int] | None = None
        """What there would be with all idle ones gone; worked out when it is first asked for."""
        self._most_with_busy: dict[str, int] | None = None
        self._protected: set[InstanceKey] = set()
        self._provided: set[InstanceKey] = set()
        """What has been handed out for an earlier ticket that wants the same instance."""
        self._taken: set[InstanceKey] = set()

    def is_exhausted(self, least: Amounts, *, with_busy: bool) -> bool:
        """Whether nobody else can be helped who needs *least* at least.

        Sending away all idle ones, and the busy ones too *with_busy*, would not be enough.
        """
        return not fits(least, self._most_of_all(with_busy=with_busy))

    def victims_of_shortage(self) -> list[Candidate]:
        """Return whom to send away where more is charged than there is; all, if not enough."""
        most = self._most_of_separable()
        lacking = {
            resource: min(self._short(resource, -amount), most[resource] - amount)
            for resource, amount in self._soon.items()
            if amount < 0 and most[resource] > amount
        }
        lacking = {resource: amount for resource, amount in lacking.items() if amount > 0}
        return self._victims(lacking, set(), True, busy_too=False) or [] if lacking else []

    def _most_of_separable(self) -> Mapping[str, int]:
        """Return what there would be with all gone that need to take nobody along who stays."""
        if self._company is None:
            return self._most_of_all(with_busy=False)
        idle = self._supply.idle.instances
        staying = idle.keys() - {each.key for each in self._company.separable(idle.values(), idle)}
        return self._supply.idle.beside(self._soon, staying)

    def _short(self, resource: str, overdraft: int) -> int:
        """Return for how much of *overdraft* somebody has to go.

        Limits do not apply to those of whom nobody could tell what they need: what they hold is
        no reason as long as the margin is really free, or will be with those who leave.
        """
        supply = self._supply
        staying = (*supply.idle.instances.values(), *supply.busy.instances.values())
        theirs = sum(
            self._ledger.charge_of(each.key).get(resource, 0)
            for each in staying
            if each.price is None
        )
        reading = self._ledger.reading(resource)
        if reading is None or not theirs:
            return overdraft
        leaving = self._soon[resource] - self._free[resource]
        broken = max(0, reading.lacking_bytes - leaving)
        return overdraft - min(theirs, max(0, overdraft - broken))

    def has(self, promised: Amounts) -> bool:
        """Whether there will be as much as is *promised* once those who leave have gone."""
        for resource, amount in promised.items():
            if amount and resource in self._soon and amount > self._soon[resource]:
                return False
        return True

    def set_aside(self, promised: Amounts, instances: Collection[InstanceKey]) -> None:
        """Hand out again what is *promised* for *instances*."""
        for resource, amount in promised.items():
            if resource in self._soon:
                self._free[resource] -= amount
                self._soon[resource] -= amount
        self._provided.update(instances)

    def keeps(self, promise: Proposal) -> bool:
        """Hand out again what was promised to a ticket, if it still has to wait for just that."""
        instance, option = promise.instance, promise.option
        choices = instance.choices
        if (
            choices is None
            or option is not choices.only  # else there might be room elsewhere by now
            or choices.prices is not instance.prices
            or instance.key in self._provided
            or instance.waits_for
            or not fits(option.needs, self._soon)
            or (instance.state in ABSENT and fits(option.needs, self._free))
            or instance.state not in _WAITED_FOR
        ):
            return False
        self._hand_out(promise)
        self._provided.add(instance.key)
        return True

    def protect(self, ticket: Ticket) -> None:
        """Let what *ticket* wants be no victim for those who come after it."""
        self._protected.update(ticket.instances)

    def propose(self, ticket: Ticket, instances: Sequence[Instance]) -> list[Proposal] | None:
        """Return what is to be done for *ticket*, and hand out what that takes; None if nothing.

        *instances* are all that the ticket wants; those on their way need nothing.
        """
        missing = [
            each
            for each in instances
            if each.state not in ON_ITS_WAY and each.key not in self._provided
        ]
        keys = ticket.instances
        if len(missing) <= 1:
            proposals = self._each(ticket, missing, keys)
        else:
            before = dict(self._free), dict(self._soon), set(self._taken)
            proposals = self._each(ticket, missing, keys)
            if proposals is None:
                self._free, self._soon, self._taken = before
                self._most = self._most_with_busy = None
        if proposals is not None:
            self._protected.update(keys)
            self._provided.update(each.key for each in missing)
        return proposals

    def _each(
        self, ticket: Ticket, missing: Iterable[Instance], keys: Collection[InstanceKey]
    ) -> list[Proposal] | None:
        proposals = []
        for instance in missing:
            proposal = self._one(ticket, instance, keys)
            if proposal is None:
                return None
            self._hand_out(proposal)
            proposals.append(proposal)
        return proposals

    def _one(
        self, ticket: Ticket, instance: Instance, keys: Collection[InstanceKey]
    ) -> Proposal | None:
        if instance.waits_for:
            return None
        choices = choices_of(instance, self._terms_of(instance), self._ledger)
        # One that is leaving must have gone before it can come back.
        can_start = instance.state not in LEAVING and self._now >= instance.not_before_seconds
        for group in (choices.good, choices.poor):
            for option in group:
                if can_start and fits(option.needs, self._free):
                    return Proposal(instance, option, starts=True)
            for option in group:
                if fits(option.needs, self._soon):
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
        keys: Collection[InstanceKey],
        is_overdue: bool,
        *,
        busy_too: bool,
    ) -> Proposal | None:
        best: Proposal | None = None
        for option in group:
            lacking = self._lacking(option.needs, with_busy=busy_too)
            if lacking is None:
                continue
            victims = self._victims(lacking, keys, is_overdue, busy_too)
            if victims is not None and (best is None or _cost(victims) < _cost(best.victims)):
                best = Proposal(instance, option, starts=False, victims=tuple(victims))
        return best

    def _lacking(self, needs: Amounts, *, with_busy: bool) -> dict[str, int] | None:
        """Return what must be freed for *needs*; None if there is not that much."""
        soon = self._soon
        lacking = {
            resource: amount - soon[resource]
            for resource, amount in needs.items()
            if resource in soon and amount > soon[resource]
        }
        most = self._most_of_all(with_busy=with_busy)
        for resource, amount in lacking.items():
            if amount > most[resource] - soon[resource]:
                return None
        return lacking

    def _victims(
        self, lacking: Amounts, keys: Collection[InstanceKey], is_overdue: bool, busy_too: bool
    ) -> list[Candidate] | None:
        staying = {*self._taken, *self._protected, *keys}
        idle = self._supply.idle.but(staying)
        busy = self._supply.busy.but(staying) if busy_too else []
        if self._is_settled is not None and not is_overdue:
            idle = [each for each in idle if self._is_settled(each)]
        if self._company is not None:
            may_go = {each.key for each in (*idle, *busy)} | self._taken
            idle = self._company.separable(idle, may_go)
            busy = self._company.separable(busy, may_go)
        for mildly in (True, False):
            victims = chosen(
                self._policy,
                self._candidates(idle, mildly),
                self._candidates(busy, mildly),
                lacking,
                self._now,
            )
            if victims is not None:
                return self._with_company(victims, (*idle, *busy), lacking, mildly=mildly)
            if all(each.terms.evict_to == "stop" for each in (*idle, *busy)):
                break
        return None

    def _with_company(
        self,
        victims: list[Candidate],
        may_go: Iterable[Instance],
        lacking: Amounts,
        *,
        mildly: bool,
    ) -> list[Candidate]:
        if self._company is None:
            return victims

        def shown(instance: Instance) -> Candidate:
            return self._candidates((instance,), mildly)[0]

        return self._company.with_all(victims, may_go, shown, lacking)

    def _candidates(self, instances: Iterable[Instance], mildly: bool) -> list[Candidate]:
        if mildly:
            return [each.shown or self._supply.shown(each) for each in instances]
        charge_of = self._ledger.charge_of
        return [candidate(each, charge_of(each.key), "stop") for each in instances]

    def _hand_out(self, proposal: Proposal) -> None:
        for victim in proposal.victims:
            self._taken.add(victim.instance)
            self._add_soon(victim.freed)
        if proposal.victims:
            self._most = self._most_with_busy = None
        needs = proposal.option.needs
        for room in (self._free, self._soon, self._most, self._most_with_busy):
            if room is not None:
                for resource, amount in needs.items():
                    if resource in room:
                        room[resource] -= amount

    def _add_soon(self, amounts: Amounts) -> None:
        for resource, amount in amounts.items():
            if resource in self._soon:
                self._soon[resource] += amount

    def _most_of_all(self, *, with_busy: bool) -> dict[str, int]:
        if self._most is None:
            self._most = self._supply.idle.beside(self._soon, self._taken)
        if not with_busy:
            return self._most
        if self._most_with_busy is None:
            self._most_with_busy = self._supply.busy.beside(self._most, self._taken)
        return self._most_with_busy


_WAITED_FOR = ABSENT | {STOPPING, DRAINING}


def choices_of(instance: Instance, terms: Terms, ledger: Ledger) -> Choices:
    """Return the ways to have *instance* awake on *terms*, the best first."""
    held = _held_asleep(instance, ledger) if instance.state in ASLEEP else None
    known = instance.choices
    if (
        known is not None
        and known.prices is instance.prices
        and known.held == held
        and known.groups == terms.exclusive_groups
        and known.surcharge == instance.surcharge == 1.0
    ):
        return known
    options = list(_options(instance, terms, ledger, held))
    made = instance.choices = Choices(
        good=tuple(option for option in options if not option.is_degraded),
        poor=tuple(option for option in options if option.is_degraded),
        prices=instance.prices,
        held=held,
        groups=terms.exclusive_groups,
        surcharge=instance.surcharge,
    )
    return made


def _held_asleep(instance: Instance, ledger: Ledger) -> Amounts:
    """Return what *instance* holds, or will hold, while it sleeps."""
    charge = ledger.charge_of(instance.key)
    if instance.state is SLEEPING:
        return charge
    return asleep(charge, residue(instance.price, instance.level or "full"))


def _options(
    instance: Instance, terms: Terms, ledger: Ledger, held: Amounts | None
) -> Iterator[Option]:
    def besides(price: Price | None, held: Amounts) -> Amounts:
        # What a sleeper holds is its own, if it goes to another place too.
        needs = needs_of(instance, price, terms, ledger)
        return {name: max(0, amount - held.get(name, 0)) for name, amount in needs.items()}

    if held is None:
        for price in instance.prices or (None,):
            yield Option(price, needs_of(instance, price, terms, ledger))
        return
    yield Option(instance.price, besides(instance.price, held), wakes=True)
    for price in instance.prices or (None,):
        if price != instance.price:
            yield Option(price, besides(price, held))


def fits(needs: Amounts, room: Mapping[str, int]) -> bool:
    """Whether there is *room* for *needs*."""
    for resource, amount in needs.items():  # a plain loop: this is asked for each who waits
        there = room.get(resource)
        if there is not None and amount > there:
            return False
    return True


def _cost(victims: Sequence[Candidate]) -> tuple[float, int]:
    """What it costs to have *victims* back: seconds of loading, then how many they are."""
    return sum(victim.load_seconds for victim in victims), len(victims)
