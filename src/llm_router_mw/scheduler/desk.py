"""The front desk: takes requests in, gives leases out, and keeps those who wait informed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from llm_router_mw.errors import (
    LeaseExpiredError,
    LLMRouterError,
    RouterNotRunningError,
)
from llm_router_mw.memory.ledger import Ledger
from llm_router_mw.scheduler import actions, events, refusals
from llm_router_mw.scheduler.forecast import request_place
from llm_router_mw.scheduler.instance import Instance, are_on_their_way
from llm_router_mw.scheduler.leases import Lease, Leases
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.queue import Queue, Ticket, Waiter
from llm_router_mw.scheduler.residents import Do, Residents
from llm_router_mw.scheduler.states import DRAINING, LOADED, STOPPING
from llm_router_mw.scheduler.terms import NOTHING_SAID
from llm_router_mw.scheduler.timers import Timers
from llm_router_mw.scheduler.together import exclude_each_other, too_large_together, too_many
from llm_router_mw.types import Failure


class Desk:
    """Owns the leases; the queue and the residents are shared with who makes room."""

    def __init__(
        self,
        limits: Limits,
        ledger: Ledger,
        residents: Residents,
        queue: Queue,
        timers: Timers,
        do: Do,
        *,
        on_idle: Callable[[Instance, float], None],
        on_left: Callable[[Ticket, float], None],
    ) -> None:
        self._limits = limits
        self._ledger = ledger
        self._residents = residents
        self._queue = queue
        self._timers = timers
        self._do = do
        self._on_idle = on_idle
        """Told when the last lease of an instance has ended."""
        self._on_left = on_left
        """Told when a ticket has gone without being served."""
        self._leases = Leases(limits.max_lease_seconds, residents.supply.note)
        self._late: set[int] = set()
        """Requests that waited for too long, and are let wait for a loading that has begun."""
        self._closing = False

    # In

    def request(self, request: events.Request, now: float) -> Ticket | None:
        """Refuse *request*, grant it at once, or let it wait; return the ticket if it waits."""
        wanted = [self._residents.known(key) for key in request.instances]
        waiter = self._waiter(request, now)
        company = [self._residents.known(each.instance) for each in waiter.company]
        together = [*wanted, *company]
        if not self._closing and _are_loaded(together):
            self._grant(waiter, wanted, now)
            return None
        if not request.hold:
            for instance in together:  # asked for by hand: try now, whatever happened before
                self._residents.forgive(instance)
        refusal = self._refusal(waiter, together, request, now)
        if refusal is not None:
            self._do(actions.Reject(request.id, refusal.to_failure()))
            self._announce_refusal(wanted[0], refusal.message)
            return None
        return self._wait(waiter)

    def _refusal(
        self, waiter: Waiter, together: list[Instance], request: events.Request, now: float
    ) -> LLMRouterError | None:
        if self._closing:
            return RouterNotRunningError("the router is closing")
        if len(together) > 1:
            refusal = too_many(together, self._limits) or self._exclude_each_other(waiter, together)
            if refusal is not None:
                return refusal
        for instance, (_, model) in zip(together, waiter.named, strict=True):
            refusal = (
                refusals.not_loaded(instance, model, request)
                or refusals.cooling_down(instance, model, now)
                or refusals.too_large(instance, repr(model), self._ledger)
                or refusals.queue_full(instance, self._queue, self._residents, self._limits)
            )
            if refusal is not None:
                return refusal
        return self._too_large_together(together, [waiter])

    def _exclude_each_other(
        self, waiter: Waiter, together: list[Instance]
    ) -> LLMRouterError | None:
        terms = self._residents.terms
        said = [terms.get(model, NOTHING_SAID) for _, model in waiter.named]
        return exclude_each_other(together, said)

    def _too_large_together(
        self, together: list[Instance], waiters: Iterable[Waiter]
    ) -> LLMRouterError | None:
        if len(together) < 2 or are_on_their_way(together):
            return None
        models = {model for waiter in waiters for _, model in waiter.named}
        return too_large_together(together, ", ".join(map(repr, sorted(models))), self._ledger)

    def _waiter(self, request: events.Request, now: float) -> Waiter:
        terms = self._residents.terms
        said = [terms[model] for model in request.models if model in terms]
        own = max([each.priority for each in said], default=0)
        patience = self._limits.queue_timeout_seconds
        if request.timeout_seconds is not None:
            patience = min(patience, request.timeout_seconds)
        return Waiter(
            request.id,
            request.instances,
            request.models,
            request.hold,
            request.priority + own,
            now,
            now + patience,
            request.keep_alive_seconds,
            tuple([companion for each in said for companion in each.companions]),
        )

    def _wait(self, waiter: Waiter) -> Ticket:
        ticket = self._queue.add(waiter)
        self._timers.ring(("waiter", waiter.id), waiter.until_seconds)
        self._watch_patience(ticket)
        for key in ticket.instances:
            instance = self._residents.known(key)
            if instance.prices is None:
                self._residents.ask_price(instance)
        self._announce_move(waiter, "a request waits for it")
        return ticket

    # Out

    def grant_all_for(self, instance: Instance, now: float) -> None:
        """Grant what waits for *instance*, in the step that sees it ready."""
        for ticket in self._queue.of(instance.key):
            wanted = {key: self._residents.known(key) for key in ticket.instances}
            # To grant one may spare what drained for it, and so grant others of these.
            if ticket.waiters and not self._closing and _are_loaded(wanted.values()):
                for waiter in self._queue.remove_ticket(ticket):
                    self._timers.forget(("waiter", waiter.id))
                    self._grant(waiter, [wanted[key] for key in waiter.instances], now)
                self._timers.forget(("ticket", ticket.id))
                self._on_left(ticket, now)

    def _grant(self, waiter: Waiter, wanted: list[Instance], now: float) -> None:
        leases = []
        for companion in waiter.company:
            self._residents.attach(self._residents.known(companion.instance), companion.model)
        for instance, model in zip(wanted, waiter.models, strict=True):
            self._residents.attach(instance, model)
            if waiter.hold:
                leases.append(self._leases.give(instance, model, waiter.keep_alive_seconds, now))
        self._do(actions.Grant(waiter.id, tuple(leases)))
        if leases:
            # None that is out runs out later.
            self._timers.ring("leases", now + self._limits.max_lease_seconds)

    def release(self, lease_id: int, now: float) -> None:
        """Take a lease back."""
        lease = self._leases.end(lease_id, now)
        if lease is None:
            return
        self._keep(lease.instance, lease, now)
        for beside in self._company_of(lease):
            # What had to come with it stays as long as it does.
            self._keep(beside, lease, now)
            if beside.is_idle:
                self._on_idle(beside, now)
        if not lease.instance.leases:
            self._on_idle(lease.instance, now)

    def _company_of(self, lease: Lease) -> Iterator[Instance]:
        """Yield those that are awake beside what was leased, unless its worker has died."""
        if lease.instance.state is STOPPING:
            return
        for companion in self._residents.terms.get(lease.model, NOTHING_SAID).companions:
            instance = self._residents.get(companion.instance)
            if instance is not None and instance.state in (LOADED, DRAINING):
                yield instance

    def _keep(self, instance: Instance, lease: Lease, now: float) -> None:
        """Let *instance* stay as the request wished that had *lease*."""
        seconds = lease.keep_alive_seconds
        if seconds is None:
            # As configured: an earlier request's wish for this model no longer holds.
            instance.keep_until.pop(lease.model, None)
        elif seconds < 0:
            instance.keep_until[lease.model] = float("inf")
        else:
            longest = self._limits.max_keep_alive_seconds
            instance.keep_until[lease.model] = now + min(seconds, longest)

    def revoke_all(self, instance: Instance, error: LLMRouterError, now: float) -> None:
        """End all leases of *instance* from our side."""
        for lease_id in list(instance.leases):
            self._revoke(lease_id, error, now)

    def revoke_expired(self, now: float) -> None:
        """End the leases that are out for too long."""
        error = LeaseExpiredError(
            f"the lease was held for more than {self._limits.max_lease_seconds:g} s"
        )
        for lease in self._leases.expired(now):
            self._revoke(lease.id, error, now)
        self._watch_leases()

    def _revoke(self, lease_id: int, error: LLMRouterError, now: float) -> None:
        self._do(actions.Revoke(lease_id, error.to_failure()))
        self.release(lease_id, now)

    def _watch_leases(self) -> None:
        expiry = self._leases.next_expiry_seconds
        if expiry is not None:
            self._timers.ring("leases", expiry)

    # Away

    def cancel(self, request_id: int, now: float) -> None:
        """Let a request wait no longer whose client has left; harmless if it does not."""
        found = self._queue.request(request_id)
        if found is not None:
            self._announce_move(found[0], "a request no longer waits for it")
            self.leave(request_id, now)

    def leave(self, request_id: int, now: float) -> None:
        """Let a request wait no longer; harmless if it does not."""
        found = self._queue.remove(request_id)
        if found is not None:
            self._timers.forget(("waiter", request_id))
            self._late.discard(request_id)
            ticket = found[1]
            if not ticket.waiters:
                self._timers.forget(("ticket", ticket.id))
                self._on_left(ticket, now)
                return
            if not ticket.is_overdue:
                self._watch_patience(ticket)
            if any(self._has_groups(model) for _, model in found[0].named):
                self._timers.ring("groups", now)  # those who are left may be in fewer

    def _has_groups(self, model: str) -> bool:
        terms = self._residents.terms.get(model)
        return terms is not None and bool(terms.exclusive_groups)

    def hurry(self, ticket_id: int, now: float) -> Ticket | None:
        """Put a ticket first if it has waited for long enough, and return it."""
        ticket = self._queue.ticket(ticket_id)
        if ticket is None or ticket.is_overdue:
            return None
        if ticket.since_seconds + self._limits.max_wait_seconds > now:
            self._watch_patience(ticket)  # its oldest request has left
            return None
        self._queue.hurry(ticket)
        waited = now - ticket.since_seconds
        first = next(iter(ticket.waiters.values()))
        self._announce_move(first, f"a request has waited for {waited:.1f} s, and goes first")
        return ticket

    def time_is_up(self, request_id: int, now: float) -> None:
        """Refuse a request whose time in the queue is over, unless its room is on its way."""
        found = self._queue.request(request_id)
        if found is None:
            return
        waiter, ticket = found
        # Added as it was when the request came: a difference would be off by a rounding error.
        longest = waiter.since_seconds + self._limits.queue_timeout_seconds
        patient = waiter.until_seconds >= longest
        # It then waits for nobody but the loading itself, unless it said how long at most.
        if patient and self._is_on_its_way(ticket):
            self._late.add(request_id)
            return
        wanted = [self._residents.known(key) for key in ticket.instances]
        place = request_place(self._queue, self._residents, request_id)
        refusal = refusals.timed_out(waiter, wanted, place, self._limits, self._ledger)
        self._reject(waiter, refusal.to_failure(), now)

    def refuse_late(self, now: float) -> None:
        """Refuse those whose time is over, and whose loading has come to nothing since."""
        for request_id in list(self._late) if self._late else ():
            found = self._queue.request(request_id)
            if found is None:
                self._late.discard(request_id)
            elif not self._is_on_its_way(found[1]):
                self.time_is_up(request_id, now)

    def _is_on_its_way(self, ticket: Ticket) -> bool:
        return are_on_their_way(map(self._residents.known, ticket.instances))

    def _watch_patience(self, ticket: Ticket) -> None:
        due = ticket.since_seconds + self._limits.max_wait_seconds
        self._timers.ring(("ticket", ticket.id), due)

    def reject_too_large(self, instance: Instance, now: float) -> None:
        """Refuse all that wait for *instance* if it can never fit."""
        for ticket in self._queue.of(instance.key):
            wanted = [self._residents.known(key) for key in ticket.instances]
            refusal = refusals.too_large(instance, ticket.names, self._ledger)
            refusal = refusal or self._too_large_together(wanted, ticket.waiters.values())
            if refusal is not None:
                self._reject_ticket(ticket, refusal.to_failure(), now)

    def reject_all_for(self, instance: Instance, failure: Failure, now: float) -> None:
        """Refuse all that wait for *instance*."""
        for ticket in self._queue.of(instance.key):
            self._reject_ticket(ticket, failure, now)

    def close(self, now: float) -> None:
        """Refuse all that wait, and all that come."""
        self._closing = True
        failure = RouterNotRunningError("the router is closing").to_failure()
        for ticket in self._queue:
            self._reject_ticket(ticket, failure, now)

    def _reject_ticket(self, ticket: Ticket, failure: Failure, now: float) -> None:
        for waiter in list(ticket.waiters.values()):
            self._reject(waiter, failure, now)

    def _reject(self, waiter: Waiter, failure: Failure, now: float) -> None:
        self._announce_refusal(self._residents.known(waiter.instances[0]), failure.message)
        self._do(actions.Reject(waiter.id, failure))
        self.leave(waiter.id, now)

    def _announce_move(self, waiter: Waiter, reason: str) -> None:
        instance = self._residents.known(waiter.instances[0])
        self._do(
            actions.Announce(
                instance=instance.key,
                kind="queued",
                state=instance.state,
                reason=reason,
                data={"request": waiter.id},
            )
        )

    def _announce_refusal(self, instance: Instance, reason: str) -> None:
        self._do(
            actions.Announce(
                instance=instance.key, kind="refused", state=instance.state, reason=reason
            )
        )


def _are_loaded(instances: Iterable[Instance]) -> bool:
    for each in instances:  # noqa: SIM110 (a generator would take five times as long)
        if each.state is not LOADED:
            return False
    return True
