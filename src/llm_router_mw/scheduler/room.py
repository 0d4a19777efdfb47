"""Makes room: lets tickets start, sends instances away for them, and lets those stay that can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from llm_router_mw.memory.ledger import Ledger
from llm_router_mw.scheduler.admission import Admission, Proposal, choices_of, fits
from llm_router_mw.scheduler.demand import candidate
from llm_router_mw.scheduler.instance import Instance, are_on_their_way
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.option import Option
from llm_router_mw.scheduler.promises import Promise, Promises
from llm_router_mw.scheduler.queue import Queue, Ticket, Turn
from llm_router_mw.scheduler.residents import Do, Residents
from llm_router_mw.scheduler.states import ABSENT, LOADED, ON_ITS_WAY, SLEEPING, UNLOADED
from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.scheduler.timers import Timers
from llm_router_mw.scheduler.victims import Trusted
from llm_router_mw.types import Failure, InstanceKey

SETTLED = "settled"
"""Rings when an instance has been resident for long enough to be a victim."""
DEFERRED = "deferred"
"""Rings when an instance may be tried again whose room others had taken."""
_PAUSE_SECONDS = 0.5
"""After which that is: each try looks at the machine's memory, and others send no news."""
_SURCHARGE = 1.25
"""What a load that ran out of memory is taken to need instead, the next time."""


class Room:
    """Decides what the residents do for those who wait."""

    def __init__(
        self,
        policy: Trusted,
        limits: Limits,
        ledger: Ledger,
        residents: Residents,
        queue: Queue,
        timers: Timers,
        do: Do,
        *,
        on_spared: Callable[[Instance, float], None],
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._ledger = ledger
        self._residents = residents
        self._queue = queue
        self._timers = timers
        self._do = do
        self._on_spared = on_spared
        """Told of an instance that drained, and stays after all."""
        self._end: Turn | None = None
        """After whose turn nobody can be helped, whatever he needs; None if that is not known."""
        self._promises = Promises()
        """What the last walk let wait for those who leave."""
        self._is_simple = False
        """Whether all that it let wait for them is there."""
        self._held_back: dict[InstanceKey, Instance] = {}
        """Those that wait until others are gone, whatever there is of room."""

    def may_help(self, ticket: Ticket) -> bool:
        """Whether something may be done for *ticket*, which is new or has moved in the queue.

        Nothing else has changed since room was made for all that waited before.
        """
        if ticket.is_served:
            return False
        # Nobody looks while nobody waits, so the first to wait finds things changed.
        return self._end is None or ticket.turn <= self._end or self._queue.is_alone(ticket)

    def forget_end(self) -> None:
        """Take note that there may be somebody now who needs less than all others."""
        self._end = None

    def make(self, now: float) -> None:
        """Start what can start, and send away whom it takes; idle ones go if others need memory."""
        self._shed(now)
        if self._queue.is_empty:
            self._better_places()
        else:
            self._serve(now)

    # For those who wait

    def _serve(self, now: float) -> None:
        walk, again = self._begin_walk(now)
        waiting: set[int] = set()
        drained_for, served = self._residents.drains.tickets, self._promises.served.keys()
        if not drained_for <= served:  # as it mostly is
            waiting = drained_for - served
        self._end = None
        self._is_simple = in_a_row = not self._residents.has_groups and not self._held_back
        for ticket in self._queue.unserved():
            if self._end is not None and ticket.id not in waiting:
                if waiting:
                    continue
                # Most of a long queue is not looked at each time.
                break
            waiting.discard(ticket.id)
            proposals = self._look_at(ticket, walk, again.get(ticket.id), now)
            if proposals is None:
                in_a_row = False
                continue
            is_served = self._is_served(ticket, proposals, now)
            in_a_row &= is_served
            if in_a_row:
                self._queue.serve(ticket)
            for proposal in proposals:
                if not proposal.starts:
                    self._promise(ticket, proposal, is_served)

    def _begin_walk(self, now: float) -> tuple[Admission, Mapping[int, Proposal]]:
        """Give those who are served what there is by now, and take the rest off for them.

        Returns:
            The walk over those who are left, and what had been promised to some of them.
        """
        self._notice()
        if not self._promises.served:
            return self._walk(now), self._promises.reconsider()
        self._start_promised(self._promises.served.values(), now)
        walk = self._walk(now)
        while not walk.has(self._promises.total):
            last = self._promises.last()
            assert last is not None
            self._queue.look_again(last)
            self._promises.unserve_last()
        walk.set_aside(self._promises.total, self._promises.instances)
        return walk, self._promises.reconsider()

    def _notice(self) -> bool:
        """Return whether anything happened to those who were served, or to what they wait for."""
        if self._residents.has_groups or self._held_back:
            # Then more may stand in the way of a ticket than a lack of room.
            self._queue.look_at_all()
            self._promises.forget()
        for instance in self._residents.unsettled():
            for ticket in self._queue.of(instance.key):
                self._queue.look_again(ticket)
        changed = False
        while (last := self._promises.last()) is not None and not last.is_served:
            self._promises.unserve_last()
            changed = True
        return changed

    def _walk(self, now: float) -> Admission:
        is_settled = None
        if self._limits.min_resident_seconds:
            is_settled = lambda instance: self._is_settled(instance, now)  # noqa: E731
        return Admission(
            self._ledger,
            self._residents.supply,
            self._policy,
            now,
            is_settled,
            self._terms_to_come,
            self._residents.company(),
        )

    def _look_at(
        self, ticket: Ticket, walk: Admission, promised: Proposal | None, now: float
    ) -> Sequence[Proposal] | None:
        """Do what can be done for *ticket* and return that; None if it has to wait for more."""
        if promised is not None and walk.keeps(promised):
            return (promised,)
        wanted = [self._residents.known(key) for key in ticket.instances]
        proposals: Sequence[Proposal] | None = ()
        if are_on_their_way(wanted):
            if len(wanted) > 1:
                walk.protect(ticket)
        elif _are_unknown(wanted) or (self._end is None and self._is_end(ticket, walk)):
            return None
        else:
            proposals = walk.propose(ticket, wanted)
            if proposals is None:
                return None
            for proposal in proposals:
                self._carry_out(proposal, ticket, now)
        if are_on_their_way(wanted):
            self.spare_for(ticket, now)
        return proposals

    def _is_end(self, ticket: Ticket, walk: Admission) -> bool:
        """Whether neither *ticket* nor anybody after it can be helped, whatever they need."""
        if walk.is_exhausted(self._residents.least_needs(), with_busy=ticket.is_overdue):
            self._end = ticket.turn
            return True
        return False

    def _is_served(self, ticket: Ticket, proposals: Sequence[Proposal], now: float) -> bool:
        """Whether nothing else is to be done for *ticket* after *proposals*, until news come."""
        if len(ticket.instances) > 1:
            return False
        instance = self._residents.known(ticket.instances[0])
        if instance.state in ON_ITS_WAY:
            return True
        choices = instance.choices
        if choices is None or now < instance.not_before_seconds:
            return not proposals
        for proposal in proposals:
            if proposal.starts or choices.only is not proposal.option:
                return False  # in the latter case there may be room elsewhere
        return True

    def _promise(self, ticket: Ticket, proposal: Proposal, is_served: bool) -> None:
        if is_served:
            # Its victims leave already when it is looked at again.
            kept = Proposal(proposal.instance, proposal.option, starts=False)
            self._promises.give(ticket, kept)
        else:
            self._is_simple = False

    def hand_over(self, gone: Instance, now: float) -> bool:
        """Give what *gone* has left to those to whom it was promised; return whether that is all.

        If so, nobody else gains by its end: what it held was counted on since it was told to go.
        """
        if (
            not self._promises
            or not self._is_simple
            or self._notice()
            or not self._promises.are_in_turn
            or self._queue.wants(gone.key)
            or self._ledger.is_overdrawn
        ):
            return False
        self._start_promised(self._promises, now)
        return True

    def _start_promised(self, promises: Iterable[Promise], now: float) -> None:
        """Start what there is room for by now of what *promises* are about, in their turn."""
        free = self._ledger.rooms()
        least = self._residents.least_needs()
        if not fits(least, free):  # as is usual
            return
        for promise in tuple(promises):
            if not fits(least, free):
                return
            ticket, proposal = promise.ticket, promise.proposal
            needs = proposal.option.needs
            if proposal.instance.state in ABSENT and fits(needs, free):
                self._promises.drop(ticket)
                starts = Proposal(proposal.instance, proposal.option, starts=True)
                self._carry_out(starts, ticket, now)
                self.spare_for(ticket, now)
            for resource, amount in needs.items():
                if resource in free:
                    free[resource] -= amount

    def left(self, ticket: Ticket, now: float) -> bool:
        """Give back what was kept for *ticket*, which is in the queue no longer.

        Returns:
            Whether anything was.
        """
        was_promised = self._promises.drop(ticket)
        self.spare_for(ticket, now)
        return was_promised

    def _carry_out(self, proposal: Proposal, ticket: Ticket, now: float) -> None:
        if proposal.starts:
            names = self._queue.names_for(proposal.instance.key)
            self._begin(proposal.instance, proposal.option, names, f"{ticket.names} is asked for")
        for victim in proposal.victims:
            loser = self._residents.known(victim.instance)
            if loser.is_busy:
                reason = f"drains to make room for {ticket.names}, which waited long enough"
                self._residents.drain(loser, victim.step, ticket.id, reason)
            else:
                reason = (
                    f"evicted to make room for {ticket.names}, after "
                    f"{now - loser.last_used_seconds:.1f} s of idleness ({self._policy.name})"
                )
                self._residents.evict(victim, reason, ticket.models)

    def _begin(self, instance: Instance, option: Option, models: set[str], reason: str) -> None:
        if option.wakes:
            self._residents.wake(instance, models, reason)
        elif instance.state is SLEEPING:
            # It comes back in another process; its ticket waits for that.
            self._residents.stop(instance, "leaves for a place where there is room")
        else:
            self._residents.start(instance, option.price, models, reason)

    def _terms_to_come(self, instance: Instance) -> Terms:
        return self._residents.terms_with(instance, lambda: self._queue.names_for(instance.key))

    def _is_settled(self, instance: Instance, now: float) -> bool:
        until = instance.loaded_at_seconds + self._limits.min_resident_seconds
        if instance.state is not LOADED or now >= until:
            return True
        self._timers.ring(SETTLED, until)
        return False

    def spare_for(self, ticket: Ticket, now: float) -> None:
        """Let those stay that drain for *ticket*, which needs them gone no longer."""
        for instance in self._residents.drains.end(ticket.id):
            self._residents.spare(instance)
            self._on_spared(instance, now)

    # After a load that ran out of memory

    def free_more_for(self, instance: Instance, failure: Failure) -> None:
        """Let *instance* be tried once more, with more room than before."""
        instance.was_retried = True
        instance.surcharge = _SURCHARGE
        self._residents.try_again(instance, f"{failure.message}; tried once more with more room")
        if instance.price is None:
            # Nobody knows how much it needs, so all that can go has to.
            for other in self._residents.expendable():
                reason = f"evicted because {instance.key} ran out of memory"
                charge = self._ledger.charge_of(other.key)
                self._residents.evict(candidate(other, charge, "stop"), reason)
                instance.waits_for.add(other.key)
            if instance.waits_for:
                self._held_back[instance.key] = instance

    def hold_back(self, instance: Instance, now: float) -> None:
        """Let *instance* be tried again a little later, since others had taken its room."""
        instance.not_before_seconds = now + _PAUSE_SECONDS
        self._timers.ring((DEFERRED, instance.key), instance.not_before_seconds)

    def came_free(self, gone: Instance) -> None:
        """Note that the worker of *gone* has ended."""
        for key, instance in list(self._held_back.items()):
            instance.waits_for.discard(gone.key)
            if not instance.waits_for:
                del self._held_back[key]
        if gone.replace and not self._queue.wants(gone.key):
            gone.replace = False
            better, keep_until = self._better(gone, gone.terms), gone.keep_until
            if better is not None:
                reason = "comes back where it fits better"
                self._residents.start(gone, better.price, set(gone.models), reason)
                gone.on_guess = True
                gone.keep_until = keep_until

    # Without anybody waiting

    def guess(self, instance: Instance, model: str) -> None:
        """Load *instance*, which may be asked for as *model*, if there is room right now.

        One that others must come with is not loaded on a guess, unless they are there.
        """
        if instance.state not in (UNLOADED, SLEEPING):
            return
        terms = self._residents.terms.get(model, instance.terms)
        companions = (self._residents.known(each.instance) for each in terms.companions)
        if any(each.state is not LOADED for each in companions):
            return
        if instance.prices is None:
            self._residents.ask_price(instance)
        elif not instance.is_coming:  # nothing is downloaded on a guess
            option = self._better(instance, self._residents.terms_with(instance, lambda: {model}))
            if option is not None and (option.wakes or instance.state in ABSENT):
                reason = "will probably be asked for next, and there is room"
                self._begin(instance, option, {model}, reason)
                instance.on_guess = True

    def _shed(self, now: float) -> None:
        """Send idle instances away where others have taken what they were given."""
        # Again, since without those to whom limits do not apply others may still be too many.
        while self._ledger.is_overdrawn:
            walk = Admission(
                self._ledger,
                self._residents.supply,
                self._policy,
                now,
                None,
                self._terms_to_come,
                self._residents.company(),
            )
            victims = walk.victims_of_shortage()
            for victim in victims:
                reason = "evicted because there is no longer room for all"
                self._residents.evict(victim, reason)
            if not victims:
                return

    def is_poorly_placed(self, instance: Instance) -> bool:
        """Whether a better place than that of *instance* exists on a machine with more room."""
        return instance.price is not None and instance.price.placement.degraded

    def _better_places(self) -> None:
        for instance in self._residents.poorly_placed():
            if instance.is_idle and self._better(instance, instance.terms):
                instance.replace = True
                self._residents.stop(instance, "leaves for a better place, now that there is room")

    def _better(self, instance: Instance, terms: Terms) -> Option | None:
        """Return the first way to have *instance* awake in a good place, without anybody's loss."""
        held = self._ledger.charge_of(instance.key) if instance.is_idle else {}
        for option in choices_of(instance, terms, self._ledger).good:
            if all(
                amount <= self._ledger.room(resource) + held.get(resource, 0)
                for resource, amount in option.needs.items()
            ):
                return option
        return None


def _are_unknown(wanted: Iterable[Instance]) -> bool:
    """Whether nobody can tell yet what one of *wanted* needs, or its files are not here."""
    for each in wanted:  # noqa: SIM110 (as in are_on_their_way)
        if each.prices is None or each.is_coming:
            return True
    return False
