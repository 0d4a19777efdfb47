"""What a world of workers knows by itself: who runs, who holds what, who waits, what is charged.

It is kept from the events that were sent and the actions that came back, never from the
scheduler's own fields, so that the scheduler can be judged by it.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.terms import Terms, shared
from llm_router_mw.types import InstanceKey, InstanceState, PoolReading, Price
from tests.support.scheduler_records import (
    Admitted,
    Asked,
    Held,
    Holding,
    Lowered,
    Sizes,
    Step,
    Trouble,
    Violation,
    Worker,
)

FIRST_COOL_DOWN_SECONDS = 10.0
LONGEST_COOL_DOWN_SECONDS = 300.0
PAUSE_SECONDS = 0.5
"""After which a load is tried again whose room others had taken."""


class Book:
    """The world's own record. ``feed`` is the one way in."""

    def __init__(self, scheduler: Scheduler, limits: Limits) -> None:
        self.scheduler = scheduler
        self.limits = limits
        self.now = 0.0
        self.terms: Mapping[str, Terms] = {}
        self.pools: dict[str, PoolReading] = {}
        self.prices: dict[InstanceKey, tuple[Price, ...]] = {}
        self.price_wanted: dict[InstanceKey, None] = {}
        self.missing: set[InstanceKey] = set()
        """Those whose files were said to be elsewhere."""
        self.downloads: dict[InstanceKey, int] = {}
        """The generation of each download under way."""
        self.workers: dict[InstanceKey, Worker] = {}
        self.requests: dict[int, Asked] = {}
        self.leases: dict[int, Held] = {}
        self.attached: dict[InstanceKey, set[str]] = {}
        """Names under which each resident instance is in use."""
        self.keep_until: dict[InstanceKey, dict[str, float]] = {}
        self.trouble: dict[InstanceKey, Trouble] = {}
        self.by_hand: set[InstanceKey] = set()
        """Those that somebody wants gone or asleep as soon as they are idle."""
        self.guesses: set[InstanceKey] = set()
        self.holdings: dict[str, Holding] = {}
        """Memory that is no instance's, by its holder."""
        self.held_back_until: dict[InstanceKey, float] = {}
        """When those may be tried again whose room others had taken."""
        self.timer: float | None = None
        self.closing = False
        self.steps = 0
        self.trace: list[tuple[float, events.Event]] = []

    # What the promises ask

    def state(self, key: InstanceKey) -> InstanceState:
        """Return the state that everybody is told of *key*."""
        instance = self.scheduler.instance(key)
        return InstanceState.UNLOADED if instance is None else instance.state

    def agreed(self, key: InstanceKey) -> Terms:
        """Return what holds for *key*: the terms of all names under which it is in use."""
        names = sorted(self.attached.get(key, ()))
        return shared(self.terms[name] for name in names if name in self.terms)

    def room(self, *, at_most: bool) -> dict[str, int]:
        """Return by pool what nobody is charged with: the most that may be, or the least."""
        room = self.capacities()
        for worker in self.workers.values():
            for pool, size in (worker.low if at_most else worker.high).items():
                if pool in room:
                    room[pool] -= size
        return room

    def capacities(self) -> dict[str, int]:
        """Return by pool what there is for instances: what can be shed is as good as free."""
        return {
            pool: reading.capacity_bytes
            - sum(each.sizes.get(pool, 0) for each in self.holdings.values() if not each.sheddable)
            for pool, reading in self.pools.items()
        }

    def is_held_back(self, key: InstanceKey) -> bool:
        return self.now < self.held_back_until.get(key, 0.0)

    def slots_taken(self) -> int:
        return sum(worker.takes_slot for worker in self.workers.values())

    def company(self, key: InstanceKey) -> list[InstanceKey]:
        """Return those that are awake and must not stay so when *key* goes."""
        worker = self.workers.get(key)
        if worker is None or worker.phase == "asleep":
            return []
        found = [key]
        for each in found:  # it grows meanwhile
            for other, resident in self.workers.items():
                needs = {companion.instance for companion in self.agreed(other).companions}
                is_awake = resident.phase in ("loading", "waking", "ready")
                if each in needs and is_awake and other not in found:
                    found.append(other)
        return found[1:]

    def wants(self, key: InstanceKey) -> list[Asked]:
        """Return the requests that wait for *key*."""
        return [asked for asked in self.requests.values() if key in asked.wanted]

    def deadline(self, asked: Asked) -> float:
        """Return when a request is refused that has no room by then."""
        patience = self.limits.queue_timeout_seconds
        if asked.event.timeout_seconds is not None:
            patience = min(patience, asked.event.timeout_seconds)
        return asked.since + patience

    def is_overdue(self, asked: Asked) -> bool:
        return self.now >= asked.since + self.limits.max_wait_seconds

    # The one way in

    def feed(self, event: events.Event) -> Step:
        """Send *event*, and take in what comes back."""
        self.steps += 1
        self.trace.append((self.now, event))
        step = Step(event, self.now, waiting=tuple(self.requests.values()))
        step.before = {key: self.state(key) for key in self.workers}
        self._take_in(event, step)
        step.actions = self.scheduler.decide(event, self.now)
        for action in step.actions:
            self._carry_out(action, step)
        return step

    def _take_in(self, event: events.Event, step: Step) -> None:
        match event:
            case events.Request():
                self.requests[event.id] = self._asked(event)
                if not event.hold:
                    for key in self.requests[event.id].wanted:
                        self._forgive(key)
            case events.Cancelled(id):
                self.requests.pop(id, None)
            case events.Released(lease):
                self._end_lease(lease)
            case events.Priced():
                self.prices[event.instance] = event.prices
                self.price_wanted.pop(event.instance, None)
                if event.is_missing:
                    self.missing.add(event.instance)
            case events.PriceFailed():
                self.price_wanted.pop(event.instance, None)
            case events.Downloaded(instance=key, generation=generation):
                if self._end_download(key, generation):
                    self.missing.discard(key)
                    self.prices.pop(key)
                    self.trouble.pop(key, None)
            case events.DownloadFailed(instance=key, generation=generation):
                if self._end_download(key, generation):
                    self._count_failure(self.trouble.setdefault(key, Trouble()))
            case events.Loaded() | events.Woke():
                self._ready(event.instance, event.generation, event.measured)
            case events.LoadFailed():
                self._load_failed(event)
            case events.Deferred():
                self._deferred(event)
            case events.Slept():
                self._slept(event)
            case events.WorkerExited():
                self._exited(event, step)
            case events.MemoryObserved():
                self.pools.update(event.pools)
                for key, seen in event.instances.items():
                    worker = self.workers.get(key)
                    if worker is not None:
                        at_rest = worker.phase in ("ready", "asleep")
                        if at_rest:
                            worker.low = {
                                pool: max(worker.reserved.get(pool, 0), seen.get(pool, 0))
                                for pool in {*worker.reserved, *seen}
                            }
                        for pool, size in seen.items():
                            worker.high[pool] = max(worker.high.get(pool, 0), size)
            case events.Held():
                self.holdings[event.holder] = Holding(event.bytes_by_pool, event.sheddable)
            case events.Catalogued():
                self.terms = event.terms
            case events.Unload():
                self._forgive(event.instance)
                for companion in self.agreed(event.instance).companions:
                    self.keep_until.get(companion.instance, {}).pop(event.model, None)
                self.attached.get(event.instance, set()).discard(event.model)
                self.keep_until.get(event.instance, {}).pop(event.model, None)
            case events.Predicted():
                self.guesses.add(event.instance)
            case events.Shutdown():
                self.closing = True
            case _:
                pass

    def _carry_out(self, action: actions.Action, step: Step) -> None:
        match action:
            case actions.AskPrice(key):
                self.price_wanted[key] = None
            case actions.Download(key, generation):
                self._download(key, generation, step)
            case actions.CancelDownload(key, generation):
                if not self._end_download(key, generation):
                    raise Violation("files are fetched once", f"{key} is not being fetched")
            case actions.Start(key, generation, price):
                self._start(key, generation, price, step)
            case actions.Wake(key):
                self._wake(key, step)
            case actions.Sleep(key) | actions.Stop(key) | actions.Kill(key):
                self._lower(key, action, step)
            case actions.Grant(request, leases):
                self._grant(request, leases, step)
            case actions.Reject(request, failure):
                asked = self.requests.pop(request, None)
                if asked is None:
                    raise Violation("answered once", f"request {request} was not waiting")
                step.rejected.append((asked, failure))
            case actions.Revoke(lease, failure):
                held = self.leases.get(lease)
                if held is None:
                    raise Violation("answered once", f"lease {lease} was revoked but is not out")
                self._end_lease(lease)
                step.revoked.append((held, failure))
            case actions.Shed(holder, pool, n_bytes):
                self._shed(holder, pool, n_bytes)
                step.shed.append(action)
            case actions.SetTimer(at_seconds):
                self.timer = at_seconds
            case actions.Announce():
                step.announced.append(action)

    # Events

    def _asked(self, event: events.Request) -> Asked:
        named = tuple(zip(event.instances, event.models, strict=True)) + tuple(
            (companion.instance, companion.model)
            for model in event.models
            if model in self.terms
            for companion in self.terms[model].companions
        )
        said = (self.terms[model].priority for model in event.models if model in self.terms)
        priority = event.priority + max(said, default=0)
        return Asked(event, self.now, named, frozenset(key for key, _ in named), priority)

    def _current(self, key: InstanceKey, generation: int) -> Worker | None:
        worker = self.workers.get(key)
        return worker if worker is not None and worker.generation == generation else None

    def _ready(self, key: InstanceKey, generation: int, measured: Sizes | None) -> None:
        worker = self._current(key, generation)
        if worker is None or worker.phase not in ("loading", "waking"):
            return
        worker.phase = "ready"
        worker.level = None
        worker.ready_at = worker.idle_since = self.now
        self.trouble.pop(key, None)
        if measured is not None:
            worker.reserved = measured
            worker.low = dict(measured)
            for pool, size in measured.items():
                worker.high[pool] = max(size, worker.high.get(pool, 0))

    def _load_failed(self, event: events.LoadFailed) -> None:
        worker = self._current(event.instance, event.generation)
        if worker is None or worker.phase not in ("loading", "waking"):
            return
        worker.phase = "stopping"
        worker.failed = True
        trouble = self.trouble.setdefault(event.instance, Trouble())
        if event.out_of_memory and not trouble.second_chance:
            trouble.second_chance = True
        else:
            self._count_failure(trouble)

    def _deferred(self, event: events.Deferred) -> None:
        worker = self._current(event.instance, event.generation)
        if worker is None or worker.phase not in ("loading", "waking"):
            return
        if worker.phase == "loading":
            del self.workers[event.instance]
        else:
            worker.phase = "asleep"
            worker.reserved, worker.low, worker.high = worker.as_it_slept
        self.held_back_until[event.instance] = self.now + PAUSE_SECONDS

    def _shed(self, holder: str, pool: str, n_bytes: int) -> None:
        holding = self.holdings.get(holder)
        if holding is None or not holding.sheddable or n_bytes > holding.sizes.get(pool, 0):
            raise Violation("what is shed was there", f"{holder} is to shed {n_bytes} of {pool}")
        left = {**holding.sizes, pool: holding.sizes[pool] - n_bytes}
        self.holdings[holder] = Holding(left, True)

    def _count_failure(self, trouble: Trouble) -> None:
        trouble.count += 1
        trouble.second_chance = False
        pause = FIRST_COOL_DOWN_SECONDS * 2.0 ** (trouble.count - 1)
        trouble.until = self.now + min(pause, LONGEST_COOL_DOWN_SECONDS)

    def _slept(self, event: events.Slept) -> None:
        worker = self._current(event.instance, event.generation)
        if worker is None or worker.phase != "falling_asleep":
            return
        worker.phase = "asleep"
        worker.reserved = event.measured or {}
        worker.low = dict(worker.reserved)
        if event.measured is not None:
            worker.high = dict(event.measured)

    def _exited(self, event: events.WorkerExited, step: Step) -> None:
        worker = self._current(event.instance, event.generation)
        if worker is None:
            return
        if worker.phase in ("loading", "waking"):
            self._count_failure(self.trouble.setdefault(event.instance, Trouble()))
        step.lost = [self.leases[lease] for lease in worker.leases]
        del self.workers[event.instance]
        self.guesses.discard(event.instance)

    def _end_download(self, key: InstanceKey, generation: int) -> bool:
        is_current = self.downloads.get(key) == generation
        if is_current:
            del self.downloads[key]
        return is_current

    def _forgive(self, key: InstanceKey) -> None:
        trouble = self.trouble.get(key)
        if trouble is not None:
            trouble.count, trouble.until = 0, 0.0

    # Actions

    def _download(self, key: InstanceKey, generation: int, step: Step) -> None:
        if key in self.downloads or key in self.workers or key not in self.missing:
            raise Violation("files are fetched once", f"{key} was to be fetched for nothing")
        self.downloads[key] = generation
        step.fetched.append(key)

    def _start(self, key: InstanceKey, generation: int, price: Price | None, step: Step) -> None:
        if key in self.workers:
            raise Violation("one load", f"{key} was started though it has a worker")
        if key in self.missing:
            raise Violation("one load", f"{key} was started though its files are not here")
        worker = Worker(generation, price, ready_at=self.now, idle_since=self.now)
        needs = {} if price is None else price.bytes_by_pool
        names = {
            model
            for asked in self.requests.values()
            for wanted, model in asked.named
            if wanted == key
        }
        if isinstance(step.event, events.Predicted):
            names = {step.event.model}
        if names:
            # Otherwise it comes back in a better place, and all that was said still holds.
            self.attached[key] = names
            self.keep_until.pop(key, None)
        self.by_hand.discard(key)
        worker.guessed = not self.wants(key)
        self._admit(key, worker, needs, step, is_wake=False)
        self.workers[key] = worker

    def _wake(self, key: InstanceKey, step: Step) -> None:
        worker = self.workers.get(key)
        if worker is None or worker.phase != "asleep":
            raise Violation("waking is a load", f"{key} was woken though it does not sleep")
        worker.phase = "waking"
        worker.as_it_slept = (worker.reserved, worker.low, worker.high)
        worker.low = {}
        self.attached.setdefault(key, set()).update(
            model
            for asked in self.requests.values()
            for wanted, model in asked.named
            if wanted == key
        )
        if isinstance(step.event, events.Predicted):
            self.attached[key].add(step.event.model)
        needs = {} if worker.price is None else worker.price.bytes_by_pool
        self._admit(key, worker, needs, step, is_wake=True)
        for pool, size in worker.as_it_slept[2].items():
            worker.high[pool] = max(size, worker.high.get(pool, 0))

    def _admit(
        self, key: InstanceKey, worker: Worker, needs: Sizes, step: Step, *, is_wake: bool
    ) -> None:
        others = [other for other in self.workers.values() if other is not worker]
        groups = set(self.agreed(key).exclusive_groups)
        rivals = tuple(
            other
            for other, resident in self.workers.items()
            if other != key
            and resident.takes_slot
            and groups & set(self.agreed(other).exclusive_groups)
        )
        step.admitted.append(
            Admitted(
                key,
                worker,
                needs,
                self.room(at_most=True),
                sum(other.takes_slot for other in others),
                len(others),
                rivals,
                is_wake,
            )
        )
        worker.reserved = needs
        worker.low = dict(needs)
        # A load that ran out of memory is charged a quarter more when it is tried again.
        tried = self.trouble.get(key)
        more = 5 if tried is not None and tried.second_chance else 4
        worker.high = {pool: size * more // 4 for pool, size in needs.items()}

    def _lower(
        self,
        key: InstanceKey,
        action: actions.Sleep | actions.Stop | actions.Kill,
        step: Step,
    ) -> None:
        worker = self.workers.get(key)
        if worker is None or worker.generation != action.generation:
            raise Violation("one load", f"{action} names a worker that does not run")
        overdrawn = self._is_overdrawn()
        leases = frozenset(worker.leases)
        step.lowered.append(Lowered(key, action, worker.phase, leases, worker, overdrawn))
        if isinstance(action, actions.Sleep):
            worker.phase = "falling_asleep"
            worker.level = action.level
        elif worker.phase != "stopping":
            worker.is_lowered = worker.phase == "asleep"
            worker.phase = "stopping"

    def _is_overdrawn(self) -> bool:
        groups = [
            group
            for key, worker in self.workers.items()
            if worker.takes_slot
            for group in self.agreed(key).exclusive_groups
        ]
        short = min(self.room(at_most=False).values(), default=0) < 0
        return short or len(groups) > len(set(groups))

    def _grant(self, request: int, leases: tuple[int, ...], step: Step) -> None:
        asked = self.requests.pop(request, None)
        if asked is None:
            raise Violation("answered once", f"request {request} was not waiting")
        workers = [self.workers.get(key) for key in asked.keys]
        step.granted.append((asked, tuple(each.phase if each else None for each in workers)))
        pairs = list(zip(asked.keys, asked.event.models, strict=True))
        for key, model in asked.named:
            self.attached.setdefault(key, set()).add(model)
        if len(leases) != (len(pairs) if asked.event.hold else 0):
            raise Violation("answered once", f"request {request} was given {len(leases)} leases")
        for lease, (key, model), worker in zip(leases, pairs, workers, strict=False):
            self.leases[lease] = Held(key, model, self.now, asked.event.keep_alive_seconds)
            if worker is not None:
                worker.leases.add(lease)
                worker.guessed = False

    def _end_lease(self, lease: int) -> None:
        held = self.leases.pop(lease, None)
        if held is None:
            return
        worker = self.workers.get(held.key)
        if worker is not None and lease in worker.leases:
            worker.leases.discard(lease)
            worker.idle_since = self.now
            self._keep(held)

    def _keep(self, held: Held) -> None:
        """Note how long the model of a request that ends is to stay, and what came with it."""
        self._keep_one(held.key, held)
        terms = self.terms.get(held.model)
        for companion in terms.companions if terms is not None else ():
            worker = self.workers.get(companion.instance)
            if worker is not None and worker.phase == "ready":
                self._keep_one(companion.instance, held)

    def _keep_one(self, key: InstanceKey, held: Held) -> None:
        until = self.keep_until.setdefault(key, {})
        if held.keep_alive is None:
            until.pop(held.model, None)
        elif held.keep_alive < 0:
            until[held.model] = float("inf")
        else:
            seconds = min(held.keep_alive, self.limits.max_keep_alive_seconds)
            until[held.model] = self.now + seconds
