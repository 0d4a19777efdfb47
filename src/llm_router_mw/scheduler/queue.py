"""Who waits: one ticket for all requests that want the same instances, in turn."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from llm_router_mw.scheduler.terms import Companion
from llm_router_mw.types import InstanceKey

Turn = tuple[int, float, float, int]


class Waiter(Struct, frozen=True, gc=False):
    """A request in the queue."""

    id: int
    instances: tuple[InstanceKey, ...]
    models: tuple[str, ...]
    hold: bool
    priority: int
    since_seconds: float
    until_seconds: float
    """When it is refused if it has no room by then."""
    keep_alive_seconds: float | None = None
    company: tuple[Companion, ...] = ()
    """What must be resident with them."""

    @property
    def named(self) -> tuple[tuple[InstanceKey, str], ...]:
        """All that it needs, company included, each with its model."""
        own = zip(self.instances, self.models, strict=True)
        if not self.company:
            return tuple(own)
        return (*own, *((each.instance, each.model) for each in self.company))


@dataclass(slots=True, eq=False)
class Ticket:
    """A demand for instances that must be resident at the same time."""

    id: int
    instances: tuple[InstanceKey, ...]
    waiters: dict[int, Waiter] = field(default_factory=dict)
    """In order of arrival."""
    priority: int = 0
    since_seconds: float = 0.0
    is_overdue: bool = False
    """Whether it has waited so long that busy victims drain for it."""
    is_served: bool = False
    """Whether nothing is to be done for it as long as nothing else happens to it: all that it
    wants is on its way, or was promised to it."""
    turn: Turn = (1, 0, 0.0, 0)
    """What tickets are sorted by, as of when it was filed: those with less come first."""

    @property
    def names(self) -> str:
        """The models that are waited for, as words."""
        return ", ".join(map(repr, self.models))

    @property
    def models(self) -> list[str]:
        """The models that are waited for."""
        return sorted({model for waiter in self.waiters.values() for model in waiter.models})

    def turn_now(self) -> Turn:
        """Return what it is to be sorted by."""
        if self.is_overdue:
            return (0, 0.0, self.since_seconds, self.id)
        return (1, -self.priority, self.since_seconds, self.id)


class Queue:
    """Tickets by overdue, then priority, then age; the age is that of the oldest request."""

    def __init__(self) -> None:
        self._tickets: dict[tuple[InstanceKey, ...], Ticket] = {}
        self._by_id: dict[int, Ticket] = {}
        self._by_instance: defaultdict[InstanceKey, dict[Ticket, None]] = defaultdict(dict)
        self._by_request: dict[int, Ticket] = {}
        self._order: list[tuple[Turn, Ticket]] = []
        self._n_served = 0
        """The first so many tickets are served."""
        self._next_id = 1

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._by_request)

    def __iter__(self) -> Iterator[Ticket]:
        """Return the tickets in the order of their turn, as it is now."""
        return iter([ticket for _, ticket in self._order])

    def unserved(self) -> Iterator[Ticket]:
        """Return the tickets in turn, from the first that is not served.

        Tickets may be served and leave meanwhile.
        """
        order, at = self._order, self._n_served
        while at < len(order):
            turn, ticket = order[at]
            yield ticket
            if at < len(order) and order[at][1] is ticket:
                at += 1
            else:
                at = bisect_left(order, (turn,))

    def serve(self, ticket: Ticket) -> None:
        """Take note that *ticket* is served, as all before it are."""
        ticket.is_served = True
        self._n_served += 1

    def look_again(self, ticket: Ticket) -> None:
        """Let neither *ticket* nor those after it be served: something has happened to it."""
        if ticket.is_served:
            self._look_again_from(self._index(ticket))

    def look_at_all(self) -> None:
        """Let nobody be served."""
        self._look_again_from(0)

    def _look_again_from(self, first: int) -> None:
        for _, ticket in self._order[first : self._n_served]:
            ticket.is_served = False
        self._n_served = min(first, self._n_served)

    @property
    def has_unserved(self) -> bool:
        """Whether something may be done yet for one of them."""
        return self._n_served < len(self._order)

    @property
    def has_overdue(self) -> bool:
        """Whether anybody has waited for too long."""
        return bool(self._order) and self._order[0][1].is_overdue

    def is_alone(self, ticket: Ticket) -> bool:
        """Whether *ticket* is the only one."""
        return len(self._order) == 1 and self._order[0][1] is ticket

    @property
    def is_empty(self) -> bool:
        return not self._by_request

    def ticket(self, ticket_id: int) -> Ticket | None:
        """Return the ticket with this id, if it still waits."""
        return self._by_id.get(ticket_id)

    def of(self, instance: InstanceKey) -> tuple[Ticket, ...]:
        """Return the tickets that want *instance*."""
        tickets = self._by_instance.get(instance)
        return tuple(tickets) if tickets else ()

    def wants(self, instance: InstanceKey) -> bool:
        """Whether anybody waits for *instance*."""
        return bool(self._by_instance.get(instance))

    def waiting(self, instance: InstanceKey) -> int:
        """Return how many requests wait for *instance*."""
        return sum(len(ticket.waiters) for ticket in self.of(instance))

    def names_for(self, instance: InstanceKey) -> set[str]:
        """Return the names under which *instance* is waited for."""
        names: set[str] = set()
        for ticket in self.of(instance):
            for waiter in ticket.waiters.values():
                if waiter.company or len(waiter.instances) > 1:
                    names.update(model for wanted, model in waiter.named if wanted == instance)
                else:
                    names.update(waiter.models)
        return names

    def request(self, request_id: int) -> tuple[Waiter, Ticket] | None:
        """Return what is known of a request that waits."""
        ticket = self._by_request.get(request_id)
        return None if ticket is None else (ticket.waiters[request_id], ticket)

    def ahead_of(self, ticket: Ticket) -> Iterable[Ticket]:
        """Return the tickets whose turn comes before that of *ticket*."""
        return [other for _, other in self._order[: self._index(ticket)]]

    def add(self, waiter: Waiter) -> Ticket:
        """Let *waiter* wait for its instances, and for their company."""
        wanted = tuple(dict.fromkeys(instance for instance, _ in waiter.named))
        ticket = self._tickets.get(wanted)
        if ticket is None:
            ticket = self._new_ticket(wanted, waiter)
        ticket.waiters[waiter.id] = waiter
        self._by_request[waiter.id] = ticket
        if waiter.priority > ticket.priority:
            self._refile(ticket)
        return ticket

    def remove(self, request_id: int) -> tuple[Waiter, Ticket] | None:
        """Let a request wait no longer; its ticket goes with the last one."""
        ticket = self._by_request.pop(request_id, None)
        if ticket is None:
            return None
        waiter = ticket.waiters.pop(request_id)
        if not ticket.waiters:
            self._forget(ticket)
        elif waiter.since_seconds == ticket.since_seconds or waiter.priority == ticket.priority:
            self._refile(ticket)
        return waiter, ticket

    def remove_ticket(self, ticket: Ticket) -> list[Waiter]:
        """Let all requests of *ticket* wait no longer; return them in their order."""
        waiters = list(ticket.waiters.values())
        for waiter in waiters:
            del self._by_request[waiter.id]
        ticket.waiters.clear()
        self._forget(ticket)
        return waiters

    def hurry(self, ticket: Ticket) -> None:
        """Put *ticket* before all that have not waited for too long."""
        ticket.is_overdue = True
        self._move(ticket)

    def _new_ticket(self, wanted: tuple[InstanceKey, ...], first: Waiter) -> Ticket:
        ticket = Ticket(
            self._next_id, wanted, priority=first.priority, since_seconds=first.since_seconds
        )
        self._next_id += 1
        self._tickets[wanted] = self._by_id[ticket.id] = ticket
        for instance in wanted:
            self._by_instance[instance][ticket] = None
        self._file(ticket)
        return ticket

    def _forget(self, ticket: Ticket) -> None:
        self._unfile(ticket)
        del self._tickets[ticket.instances], self._by_id[ticket.id]
        for instance in ticket.instances:
            tickets = self._by_instance[instance]
            del tickets[ticket]
            if not tickets:
                del self._by_instance[instance]

    def _refile(self, ticket: Ticket) -> None:
        since = next(iter(ticket.waiters.values())).since_seconds
        if since > ticket.since_seconds:
            # The one that had waited so long has left.
            ticket.is_overdue = False
            ticket.since_seconds = since
        ticket.priority = max(waiter.priority for waiter in ticket.waiters.values())
        self._move(ticket)

    def _move(self, ticket: Ticket) -> None:
        """Put *ticket* where it belongs now."""
        before = self._index(ticket)
        ticket.turn = ticket.turn_now()
        after = self._index(ticket)
        if after in (before, before + 1):
            self._order[before] = (ticket.turn, ticket)
            return
        self._look_again_from(min(before, after))
        self._order.insert(after, (ticket.turn, ticket))
        del self._order[before + (after < before)]

    def _file(self, ticket: Ticket) -> None:
        ticket.turn = ticket.turn_now()
        at = self._index(ticket)
        self._look_again_from(at)
        self._order.insert(at, (ticket.turn, ticket))

    def _unfile(self, ticket: Ticket) -> None:
        del self._order[self._index(ticket)]
        self._n_served -= ticket.is_served

    def _index(self, ticket: Ticket) -> int:
        # A turn alone comes right before the entry with that turn, and no two are equal.
        return bisect_left(self._order, (ticket.turn,))
