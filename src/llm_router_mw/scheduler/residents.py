"""The instances and their states: every change of one, with what it means for the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_router_mw.memory.ledger import Ledger
from llm_router_mw.protocols import Candidate
from llm_router_mw.scheduler import actions
from llm_router_mw.scheduler.arithmetic import arithmetic, in_words
from llm_router_mw.scheduler.company import Company
from llm_router_mw.scheduler.demand import SLOTS, asleep, demand, needs_of, regrouped, residue
from llm_router_mw.scheduler.drains import Drains
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.states import (
    ASLEEP,
    DOWNLOADING,
    DRAINING,
    FAILED,
    FALLING_ASLEEP,
    LOADED,
    LOADING,
    SLEEPING,
    STOPPING,
    UNLOADED,
    WAKING,
)
from llm_router_mw.scheduler.supply import Supply
from llm_router_mw.scheduler.terms import Terms, shared
from llm_router_mw.types import (
    EventKind,
    Failure,
    InstanceKey,
    InstanceState,
    Price,
    SleepLevel,
    Step,
)

Do = Callable[[actions.Action], None]

_A_SLOT = {SLOTS: 1}
_COUNTED_ON = {
    LOADING: LOADED,
    WAKING: LOADED,
    DRAINING: STOPPING,
}
"""What whoever waits for an instance counts on, by its state."""


class Residents:
    """Owns all instances that were ever asked for; those with a worker are the residents."""

    def __init__(self, ledger: Ledger, do: Do) -> None:
        self._ledger = ledger
        self._do = do
        self._known: dict[InstanceKey, Instance] = {}
        self._resident: dict[InstanceKey, Instance] = {}
        self._terms: Mapping[str, Terms] = {}
        self._poor: dict[InstanceKey, Instance] = {}
        """Those in degraded places."""
        self._least: Mapping[str, int] | None = None
        """By pool, what the smallest of all known instances needs; None before there is one."""
        self._least_of_all = _A_SLOT
        self._asleep: set[InstanceKey] = set()
        """Those that sleep or fall asleep."""
        self.has_groups = False
        self._has_company = False
        self._unsettled: dict[Instance, None] = {}
        self.drains = Drains()
        """Who drains for whom."""
        self.supply = Supply(ledger)
        """What all of them could give."""

    # What there is

    def get(self, key: InstanceKey) -> Instance | None:
        return self._known.get(key)

    def known(self, key: InstanceKey) -> Instance:
        """Return the instance of *key*, a new one if nobody has asked for it before."""
        instance = self._known.get(key)
        if instance is None:
            instance = self._known[key] = Instance(key)
        return instance

    def current(self, key: InstanceKey, generation: int) -> Instance | None:
        """Return the instance of *key* if *generation* is its present one, and it has a worker."""
        instance = self._resident.get(key)
        return instance if instance is not None and instance.generation == generation else None

    def all(self) -> Iterator[Instance]:
        return iter(self._known.values())

    def __iter__(self) -> Iterator[Instance]:
        """Return those that have a worker."""
        return iter(list(self._resident.values()))

    @property
    def terms(self) -> Mapping[str, Terms]:
        return self._terms

    def agree(self, terms: Mapping[str, Terms]) -> None:
        """Take *terms* as what is said of the models from now on."""
        self._terms = terms
        self.has_groups = any(each.exclusive_groups for each in terms.values())
        self._has_company = any(each.companions for each in terms.values())
        for instance in self._resident.values():
            self._agree(instance)

    def attach(self, instance: Instance, model: str) -> None:
        """Note that *model* uses *instance*, and what was said about it holds too."""
        if model not in instance.models:
            instance.models.add(model)
            self._agree(instance)

    def terms_with(self, instance: Instance, models: Callable[[], Iterable[str]]) -> Terms:
        """Return what will hold for *instance* when *models* use it too, as to groups."""
        if not self.has_groups:  # nothing else of them matters before it is there
            return instance.terms
        names = {*models(), *instance.models} if instance.has_worker else set(models())
        return shared(self._terms[name] for name in sorted(names) if name in self._terms)

    def company(self) -> Company | None:
        """Return who goes with whom, as things are now; None if everybody goes alone."""
        return Company(self._resident.values()) if self._has_company else None

    def expendable(self) -> list[Instance]:
        """Return those that nobody uses and that may go, as far as all go that go with them."""
        idle = [each for each in self._resident.values() if each.is_idle and not each.terms.pinned]
        company = self.company()
        return idle if company is None else company.separable(idle, {each.key for each in idle})

    def poorly_placed(self) -> list[Instance]:
        """Return the instances in degraded places."""
        return list(self._poor.values())

    def unsettled(self) -> Iterable[Instance]:
        """Return those on which nobody may count any more as before, once."""
        unsettled, self._unsettled = self._unsettled, {}
        return unsettled

    # Prices

    def ask_price(self, instance: Instance) -> None:
        """Have it found out what *instance* needs."""
        if not instance.price_asked:
            instance.price_asked = True
            self._do(actions.AskPrice(instance.key))

    def priced(self, instance: Instance, prices: tuple[Price, ...]) -> bool:
        """Take *prices* as what *instance* is charged in each place.

        Returns:
            Whether it may need less than all others.
        """
        least = self._least
        if instance.prices is not None:
            self._unsettled[instance] = None
        instance.prices = prices
        instance.price_asked = False
        self.supply.note(instance)
        for price in prices:
            # What was learned of the place where it is holds when it wakes there, too.
            if instance.price is not None and price.placement == instance.price.placement:
                instance.price = price
        pools = {pool for price in prices for pool in price.bytes_by_pool}
        needs = {pool: min(each.bytes_by_pool.get(pool, 0) for each in prices) for pool in pools}
        if self._least is None:
            self._least = needs
        else:
            # What one of them does not need at all is no limit for it.
            common = self._least.keys() & needs.keys()
            self._least = {pool: min(self._least[pool], needs[pool]) for pool in common}
        self._least_of_all = {SLOTS: 1, **{pool: n for pool, n in self._least.items() if n > 0}}
        return self._least != least

    def least_needs(self) -> Mapping[str, int]:
        """Return what any instance needs at least that is not awake."""
        if self._asleep:
            return _A_SLOT  # they have a part of their memory already
        return self._least_of_all

    # From the hub

    def download(self, instance: Instance) -> None:
        """Have the files of *instance* fetched: it is charged with nothing for that."""
        instance.generation += 1
        self._become(instance, DOWNLOADING, "its files are fetched from the hub")
        self._do(actions.Download(instance.key, instance.generation))

    def downloading(self, key: InstanceKey, generation: int) -> Instance | None:
        """Return the instance of *key* if its files come with the download *generation*."""
        instance = self._known.get(key)
        if instance is None or instance.state is not DOWNLOADING:
            return None
        return instance if instance.generation == generation else None

    def downloaded(self, instance: Instance) -> None:
        """Take the files of *instance* as here; what they say replaces what their headers said."""
        instance.is_missing = False
        instance.prices = None
        instance.forget_failure()
        self._become(instance, UNLOADED, "its files are here")

    def download_failed(self, instance: Instance, failure: Failure, now: float) -> None:
        """Note that the files of *instance* could not be fetched."""
        instance.failed(failure, now)
        self._become(instance, FAILED, failure.message, kind="load_failed")

    def cancel_download(self, instance: Instance, reason: str) -> None:
        """Let the files of *instance* be, as far as they have come."""
        self._become(instance, UNLOADED, reason)
        self._do(actions.CancelDownload(instance.key, instance.generation))

    # Up

    def start(self, instance: Instance, price: Price | None, models: set[str], reason: str) -> None:
        """Let a worker load *instance* for *models*; what it takes is charged from here on."""
        instance.generation += 1
        instance.models = models
        instance.agree(self._terms)
        instance.price = price
        instance.level = None
        instance.replace = instance.on_guess = False
        instance.keep_until = {}
        self._resident[instance.key] = instance
        if price is not None and price.placement.degraded:
            self._poor[instance.key] = instance
        needs = needs_of(instance, price, instance.terms, self._ledger)
        self._ledger.charge(instance.key, needs)
        self._become(instance, LOADING, reason, data=arithmetic(self._ledger, instance.key))
        self._do(actions.Start(instance.key, instance.generation, price))

    def wake(self, instance: Instance, models: set[str], reason: str) -> None:
        """Let *instance* load again in its own process, for *models* too."""
        instance.models |= models
        instance.agree(self._terms)
        held = instance.held_asleep = self._ledger.charge_of(instance.key)
        needs = needs_of(instance, instance.price, instance.terms, self._ledger)
        # Never less than its process holds already, whatever was thought.
        self._ledger.charge(
            instance.key,
            {name: max(needs.get(name, 0), held.get(name, 0)) for name in {**held, **needs}},
        )
        self._become(instance, WAKING, reason, data=arithmetic(self._ledger, instance.key))
        self._do(actions.Wake(instance.key, instance.generation))

    def ready(
        self, instance: Instance, measured: Mapping[str, int] | None, now: float, reason: str
    ) -> None:
        """Take *instance* as loaded; what it was *measured* to hold replaces what was thought."""
        instance.forget_failure()
        instance.surcharge = 1.0
        instance.was_retried = False
        instance.level = None
        instance.loaded_at_seconds = instance.last_used_seconds = now
        if measured is not None:
            self._ledger.charge(instance.key, demand(None, instance.terms) | dict(measured))
        held = in_words(self._ledger, self._ledger.charge_of(instance.key))
        self._become(instance, LOADED, f"{reason}, takes {held}" if held else reason)

    # Down

    def drain(self, instance: Instance, step: Step, ticket: int | None, reason: str) -> None:
        """Let *instance* take no new leases, and go down to *step* when the last one ends."""
        instance.next_step = step
        self.drains.set(instance, ticket)
        self._become(instance, DRAINING, reason)

    def spare(self, instance: Instance) -> None:
        """Let *instance* stay after all."""
        self.drains.set(instance, None)
        self._become(instance, LOADED, "its room is no longer needed")

    def lower(self, instance: Instance, step: Step, reason: str) -> None:
        """Send *instance*, which nobody uses, down to *step*."""
        self._lower(instance, step, reason, "status", {})

    def evict(self, victim: Candidate, reason: str, models: Sequence[str] = ()) -> None:
        """Send *victim*, which nobody uses, down for *models*."""
        freed = {name: n for name, n in victim.freed.items() if self._ledger.reading(name)}
        data = {"freed": freed, "for": list(models)}
        self._lower(self.known(victim.instance), victim.step, reason, "evicted", data)

    def _lower(
        self, instance: Instance, step: Step, reason: str, kind: EventKind, data: dict[str, Any]
    ) -> None:
        if step == "stop" or instance.state is SLEEPING:
            self.stop(instance, reason, kind=kind, data=data)
        else:
            self._sleep(instance, step, reason, kind, data)

    def stop(
        self,
        instance: Instance,
        reason: str,
        *,
        kind: EventKind = "status",
        data: dict[str, Any] | None = None,
    ) -> None:
        """Let the worker of *instance* end; it is charged until it has."""
        self._become(instance, STOPPING, reason, kind=kind, data=data)
        self._do(actions.Stop(instance.key, instance.generation))

    def kill(self, instance: Instance) -> None:
        """End the worker of *instance* at once."""
        self._do(actions.Kill(instance.key, instance.generation))

    def slept(self, instance: Instance, measured: Mapping[str, int] | None, reason: str) -> None:
        """Take *instance* as asleep; it is charged with what it was *measured* to hold still."""
        level = instance.level or "full"
        # Of pools that could not be measured, what is expected to stay: a GPU's context.
        left = residue(instance.price, level) | dict(measured or {})
        before = self._ledger.charge_of(instance.key)
        after = asleep(before, left)
        self._ledger.charge(instance.key, after)
        freed = in_words(self._ledger, {name: n - after.get(name, 0) for name, n in before.items()})
        if freed:
            reason = f"{reason}, freed {freed}, keeps {in_words(self._ledger, after) or 'nothing'}"
        self._become(instance, SLEEPING, reason)

    def sleeps_on(self, instance: Instance, reason: str) -> None:
        """Take *instance*, which was to wake, as asleep as it was before."""
        instance.on_guess = False
        self._ledger.charge(instance.key, instance.held_asleep)
        self._become(instance, SLEEPING, reason)

    def load_failed(self, instance: Instance, failure: Failure, now: float) -> None:
        """Note a failed load. Not failed yet: the room is free only when the worker has exited."""
        instance.surcharge = 1.0
        instance.was_retried = False
        instance.failed(failure, now)
        self._become(instance, STOPPING, failure.message, kind="load_failed")

    def try_again(self, instance: Instance, reason: str) -> None:
        """Note that *instance* is to be loaded once more when its worker has exited."""
        self._become(instance, STOPPING, reason, kind="load_failed")

    def dying(self, instance: Instance) -> None:
        """Let nothing more be done to *instance*: its worker has ended already."""
        instance.state = STOPPING
        self.supply.note(instance)

    def gone(self, instance: Instance, reason: str, *, died: bool = False) -> None:
        """Take the worker of *instance* as gone, and its memory with it."""
        del self._resident[instance.key]
        self.drains.set(instance, None)
        self._poor.pop(instance.key, None)
        self._ledger.charge(instance.key, {})
        instance.level = None
        instance.price = None
        state = FAILED if instance.failure else UNLOADED
        self._become(instance, state, reason, kind="worker_died" if died else "status")

    def detach(self, instance: Instance, model: str) -> None:
        """Note that *model* no longer uses *instance*."""
        instance.models.discard(model)
        instance.keep_until.pop(model, None)
        self._agree(instance)

    def forgive(self, instance: Instance) -> None:
        """Forget why *instance* failed."""
        instance.forget_failure()
        if instance.state is FAILED:
            self._become(instance, UNLOADED, "its failure was cleared")

    def observe(self, instance: Instance, seen: Mapping[str, int]) -> None:
        """Charge *instance* with what it was *seen* to hold, where that is more."""
        self._ledger.see(instance.key, seen)
        self.supply.note(instance)

    def _agree(self, instance: Instance) -> None:
        """Take what holds now for *instance*, and charge it with the groups that it is in."""
        instance.agree(self._terms)
        self.supply.note(instance)
        charge = self._ledger.charge_of(instance.key)
        if SLOTS in charge:  # who sleeps is in no group until it wakes
            now = regrouped(charge, instance.terms)
            if now != charge:
                self._ledger.charge(instance.key, now)

    def _sleep(
        self,
        instance: Instance,
        level: SleepLevel,
        reason: str,
        kind: EventKind,
        data: dict[str, Any],
    ) -> None:
        instance.level = level
        self._become(instance, FALLING_ASLEEP, reason, kind=kind, data=data)
        self._do(actions.Sleep(instance.key, instance.generation, level))

    def _become(
        self,
        instance: Instance,
        state: InstanceState,
        reason: str,
        *,
        kind: EventKind = "status",
        data: dict[str, Any] | None = None,
    ) -> None:
        if _COUNTED_ON.get(instance.state, state) is not state:
            self._unsettled[instance] = None
        instance.state = state
        self.supply.note(instance)
        (self._asleep.add if state in ASLEEP else self._asleep.discard)(instance.key)
        self._do(
            actions.Announce(
                instance=instance.key, kind=kind, state=state, reason=reason, data=data or {}
            )
        )
