"""Makes room: lets tickets start, sends instances away for them, and lets those stay that can."""

from __future__ import annotations

from collections.abc import Callable

from llm_router_mw.memory.ledger import Ledger
from llm_router_mw.protocols import EvictionPolicy
from llm_router_mw.scheduler import actions
from llm_router_mw.scheduler.admission import Admission, Option, Proposal, options
from llm_router_mw.scheduler.instance import ON_ITS_WAY, Instance
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.queue import Queue, Ticket
from llm_router_mw.scheduler.residents import Do, Residents
from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.scheduler.timers import Timers
from llm_router_mw.types import Failure, InstanceKey, InstanceState

SETTLED = "settled"
"""Rings when an instance has been resident for long enough to be a victim."""
_SURCHARGE = 1.25
"""What a load that ran out of memory is taken to need instead, the next time."""


class Room:
    """Decides what the residents do for those who wait."""

    def __init__(
        self,
        policy: EvictionPolicy,
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
        self._held_back: dict[InstanceKey, Instance] = {}
        """Those that wait until others are gone, whatever there is of room."""

    def make(self, now: float) -> None:
        """Start what can start, and send away whom it takes; idle ones go if others need memory."""
        self._shed(now)
        if self._queue.is_empty:
            self._better_places()
        else:
            self._serve(now)

    # For those who wait

    def _serve(self, now: float) -> None:
        walk = Admission(
            self._ledger,
            tuple(self._residents),
            self._policy,
            now,
            lambda instance: self._is_settled(instance, now),
            self._terms_to_come,
        )
        for ticket in self._queue:
            wanted = [self._residents.known(key) for key in ticket.instances]
            if self._all_priced(wanted):
                proposals = walk.propose(ticket, wanted)
                if proposals is not None:
                    for proposal in proposals:
                        self._carry_out(proposal, ticket, now)
                    if all(instance.state in ON_ITS_WAY for instance in wanted):
                        self.spare_for(ticket, now)

    def _all_priced(self, wanted: list[Instance]) -> bool:
        unpriced = [instance for instance in wanted if instance.prices is None]
        for instance in unpriced:
            self._ask_price(instance)
        return not unpriced

    def _ask_price(self, instance: Instance) -> None:
        if not instance.price_asked:
            instance.price_asked = True
            self._do(actions.AskPrice(instance.key))

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
                self._residents.lower(loser, victim.step, reason, kind="evicted")

    def _begin(self, instance: Instance, option: Option, models: set[str], reason: str) -> None:
        if option.wakes:
            self._residents.wake(instance, models, reason)
        elif instance.state is InstanceState.SLEEPING:
            # It comes back in another process; its ticket waits for that.
            self._residents.stop(instance, "leaves for a place where there is room")
        else:
            self._residents.start(instance, option.price, models, reason)

    def _terms_to_come(self, instance: Instance) -> Terms:
        return self._residents.terms_with(instance, self._queue.names_for(instance.key))

    def _is_settled(self, instance: Instance, now: float) -> bool:
        until = instance.loaded_at_seconds + self._limits.min_resident_seconds
        if instance.state is not InstanceState.LOADED or now >= until:
            return True
        self._timers.ring(SETTLED, until)
        return False

    def spare_for(self, ticket: Ticket, now: float) -> None:
        """Let those stay that drain for *ticket*, which needs them gone no longer."""
        for instance in self._residents:
            if instance.drains_for == ticket.id and instance.state is InstanceState.DRAINING:
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
            for other in self._residents:
                if other.is_idle and not other.terms.pinned:
                    reason = f"evicted because {instance.key} ran out of memory"
                    self._residents.stop(other, reason, kind="evicted")
                    instance.waits_for.add(other.key)
            if instance.waits_for:
                self._held_back[instance.key] = instance

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
        """Load *instance*, which may be asked for as *model*, if there is room right now."""
        if instance.state not in (InstanceState.UNLOADED, InstanceState.SLEEPING):
            return
        if self._all_priced([instance]):
            option = self._better(instance, self._residents.terms_with(instance, {model}))
            if option is not None:
                reason = "will probably be asked for next, and there is room"
                self._begin(instance, option, {model}, reason)
                instance.on_guess = True

    def _shed(self, now: float) -> None:
        """Send idle instances away where others have taken what they were given."""
        if not self._ledger.is_overdrawn:
            return
        walk = Admission(
            self._ledger,
            tuple(self._residents),
            self._policy,
            now,
            lambda instance: True,
            self._terms_to_come,
        )
        for victim in walk.victims_of_shortage():
            instance = self._residents.known(victim.instance)
            reason = "evicted because there is no longer room for all"
            self._residents.lower(instance, victim.step, reason, kind="evicted")

    def is_poorly_placed(self, instance: Instance) -> bool:
        """Whether a better place than that of *instance* exists on a machine with more room."""
        return instance.price is not None and instance.price.placement.degraded

    def _better_places(self) -> None:
        for instance in self._residents:
            if (
                instance.is_idle
                and self.is_poorly_placed(instance)
                and self._better(instance, instance.terms)
            ):
                instance.replace = True
                self._residents.stop(instance, "leaves for a better place, now that there is room")

    def _better(self, instance: Instance, terms: Terms) -> Option | None:
        """Return the first way to have *instance* awake in a good place, without anybody's loss."""
        held = self._ledger.charge_of(instance.key) if instance.is_idle else {}
        for option in options(instance, terms, self._ledger):
            if not option.is_degraded and all(
                amount <= self._ledger.room(resource) + held.get(resource, 0)
                for resource, amount in option.needs.items()
            ):
                return option
        return None
