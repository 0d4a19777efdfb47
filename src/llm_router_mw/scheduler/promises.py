"""What the last walk over the queue let wait for those who leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llm_router_mw.memory.ledger import Amounts
from llm_router_mw.scheduler.admission import Proposal
from llm_router_mw.scheduler.queue import Ticket, Turn
from llm_router_mw.types import InstanceKey


@dataclass(frozen=True, slots=True)
class Promise:
    """Room that will be there for a ticket once others have gone."""

    ticket: Ticket
    turn: Turn
    proposal: Proposal


class Promises:
    """One for each ticket that has one, in turn: first those to tickets that are served."""

    def __init__(self) -> None:
        self._served: dict[int, Promise] = {}
        self._later: dict[int, Promise] = {}
        self._total: dict[str, int] = {}
        self._instances: set[InstanceKey] = set()

    def __bool__(self) -> bool:
        return bool(self._served or self._later)

    def __iter__(self) -> Iterator[Promise]:
        """Return all, in turn."""
        return iter((*self._served.values(), *self._later.values()))

    @property
    def served(self) -> Mapping[int, Promise]:
        """Those by which tickets are served, by the id of the ticket."""
        return self._served

    @property
    def total(self) -> Amounts:
        """What has been promised to those who are served."""
        return self._total

    @property
    def instances(self) -> set[InstanceKey]:
        """The instances that those wait for."""
        return self._instances

    def give(self, ticket: Ticket, proposal: Proposal) -> None:
        """Promise to *ticket*, whose turn comes after that of all others who have a promise."""
        promise = Promise(ticket, ticket.turn, proposal)
        if not ticket.is_served:
            self._later[ticket.id] = promise
            return
        self._served[ticket.id] = promise
        self._instances.add(proposal.instance.key)
        self._count(proposal.option.needs, 1)

    def drop(self, ticket: Ticket) -> bool:
        """Forget what was promised to *ticket*: it has that now, or has left.

        Returns:
            Whether anything was.
        """
        later = self._later.pop(ticket.id, None)
        promise = self._served.pop(ticket.id, None)
        if promise is None:
            return later is not None
        self._instances.discard(promise.proposal.instance.key)
        self._count(promise.proposal.option.needs, -1)
        return True

    @property
    def are_in_turn(self) -> bool:
        """Whether those who are not served have the turns that they had."""
        return not self._later or all(
            each.ticket.turn == each.turn for each in self._later.values()
        )

    def last(self) -> Ticket | None:
        """Return the last ticket that was served by a promise."""
        for promise in reversed(self._served.values()):
            return promise.ticket
        return None

    def unserve_last(self) -> None:
        """Take note that this one is served no longer."""
        ticket_id, promise = self._served.popitem()
        self._later = {ticket_id: promise, **self._later}
        self._instances.discard(promise.proposal.instance.key)
        self._count(promise.proposal.option.needs, -1)

    def forget(self) -> None:
        """Keep none."""
        self._served.clear()
        self._later.clear()
        self._instances.clear()
        self._total.clear()

    def reconsider(self) -> dict[int, Proposal]:
        """Forget what was promised to those who are not served, and return it by ticket."""
        later, self._later = self._later, {}
        return {ticket: promise.proposal for ticket, promise in later.items()}

    def _count(self, needs: Amounts, sign: int) -> None:
        total = self._total
        for resource, amount in needs.items():
            total[resource] = total.get(resource, 0) + sign * amount
