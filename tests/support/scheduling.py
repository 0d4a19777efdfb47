"""A scheduler with a clock that the test turns, and a world that obeys its actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llm_router_mw.protocols import Candidate, EvictionPolicy, Shortfall
from llm_router_mw.scheduler import Instance, Scheduler, actions, events
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.types import (
    Failure,
    InstanceKey,
    InstanceState,
    LoadOptions,
    Placement,
    PoolReading,
    Price,
    SleepLevel,
)


class Lru:
    """The default order."""

    name = "lru"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        return sorted(candidates, key=lambda candidate: candidate.last_used_seconds)


def key(name: str) -> InstanceKey:
    """Return the identity of the instance that test models call *name*."""
    return InstanceKey(name, LoadOptions())


def price(
    *,
    degraded: bool = False,
    context: Mapping[str, int] | None = None,
    weights: Mapping[str, int] | None = None,
    **pools: int,
) -> Price:
    """Return what a placement on *pools* is charged; the devices are named as the pools are."""
    return Price(
        placement=Placement(devices=tuple(pools), n_gpu_layers=-1, degraded=degraded),
        bytes_by_pool=pools,
        context_bytes_by_pool=context or {},
        weights_bytes_by_pool=weights or {},
    )


def reading(total: int, *, others: int = 0, margin: int = 0) -> PoolReading:
    """Return one look at a pool of which other programs hold *others*."""
    return PoolReading(total_bytes=total, free_bytes=total - others, margin_bytes=margin)


class World:
    """Feeds a scheduler and remembers what it wanted, in words short enough for assertions.

    Prices that are asked for are answered at once: with what ``prices`` says of the model, or
    with none, so that its memory is unknown. ``keep_prices_waiting`` leaves the answer to the
    test.
    """

    def __init__(self, *, policy: EvictionPolicy | None = None, **limits: Any) -> None:
        defaults = {"models_max": 1, "max_queue": 0}
        self.scheduler = Scheduler(policy or Lru(), Limits(**{**defaults, **limits}))
        self.now = 0.0
        self.did: list[str] = []
        self.granted: dict[int, tuple[int, ...]] = {}
        self.rejected: dict[int, Failure] = {}
        self.revoked: dict[int, Failure] = {}
        self.started: dict[str, Price | None] = {}
        """With what each instance was started last."""
        self.announced: list[actions.Announce] = []
        self.asked_prices: list[str] = []
        self.prices: dict[str, tuple[Price, ...]] = {}
        self.missing: set[str] = set()
        """Models whose files have yet to be downloaded."""
        self.keep_prices_waiting = False
        self.timer: float | None = None
        self._next_request = 0

    # What is known beforehand

    def memory(self, *, margin: int = 0, others: int = 0, **totals: int) -> list[str]:
        """Let the pools be seen, each with its capacity."""
        return self.observe(
            {pool: reading(total, others=others, margin=margin) for pool, total in totals.items()}
        )

    def observe(
        self,
        pools: Mapping[str, PoolReading],
        instances: Mapping[str, Mapping[str, int]] | None = None,
    ) -> list[str]:
        """Let the pools be seen, and what instances were seen to hold of them."""
        held = {key(name): sizes for name, sizes in (instances or {}).items()}
        return self.send(events.MemoryObserved(pools=pools, instances=held))

    def sizes(self, **sizes: int) -> None:
        """Say what each model needs of the pool ``gpu``."""
        for name, size in sizes.items():
            self.prices[name] = (price(gpu=size),)

    def terms(self, **terms: Terms) -> list[str]:
        """Say what holds for each model, by name."""
        return self.send(events.Catalogued(terms=terms))

    # What happens

    def send(self, event: events.Event) -> list[str]:
        """Feed *event*; return what was started, stopped, put to sleep, granted and rejected."""
        before = len(self.did)
        for action in self.scheduler.decide(event, self.now):
            self._note(action)
        if not self.keep_prices_waiting:
            self.answer_prices()
        return self.did[before:]

    def answer_prices(self) -> list[str]:
        """Answer what was asked about prices."""
        before = len(self.did)
        while self.asked_prices:
            name = self.asked_prices.pop(0)
            self.priced(name, self.prices.get(name, ()))
        return self.did[before:]

    def priced(self, name: str, prices: Iterable[Price]) -> list[str]:
        is_missing = name in self.missing
        return self.send(
            events.Priced(instance=key(name), prices=tuple(prices), is_missing=is_missing)
        )

    def downloaded(self, name: str) -> list[str]:
        self.missing.discard(name)
        return self.send(events.Downloaded(instance=key(name), generation=self.generation(name)))

    def download_failed(self, name: str, message: str = "the hub is gone") -> list[str]:
        return self.send(
            events.DownloadFailed(
                instance=key(name),
                generation=self.generation(name),
                failure=Failure(kind="DownloadError", message=message),
            )
        )

    def ask(self, *names: str, **fields: Any) -> int:
        """Request *names*, each of its own instance; return the request's id."""
        return self.ask_shared(*((name, name) for name in names), **fields)

    def ask_shared(self, *models: tuple[str, str], **fields: Any) -> int:
        """Request *models*, each a name and its instance; return the request's id."""
        self._next_request += 1
        request = events.Request(
            id=self._next_request,
            instances=tuple(key(instance) for _, instance in models),
            models=tuple(model for model, _ in models),
            **fields,
        )
        self.send(request)
        return request.id

    def loaded(self, name: str, **measured: int) -> list[str]:
        return self.send(
            events.Loaded(
                instance=key(name),
                generation=self.generation(name),
                load_seconds=1.0,
                measured=measured or None,
            )
        )

    def load_failed(
        self, name: str, message: str = "it is broken", *, out_of_memory: bool = False
    ) -> list[str]:
        return self.send(
            events.LoadFailed(
                instance=key(name),
                generation=self.generation(name),
                failure=Failure(kind="ModelLoadError", message=message),
                out_of_memory=out_of_memory,
            )
        )

    def fail(self, name: str, *, out_of_memory: bool = False) -> list[str]:
        """Let a load or a wake fail, and its worker exit."""
        done = self.load_failed(name, out_of_memory=out_of_memory)
        return done + self.exited(name)

    def exited(self, name: str) -> list[str]:
        return self.send(
            events.WorkerExited(
                instance=key(name), generation=self.generation(name), reason="exited with code 0"
            )
        )

    def slept(self, name: str, **measured: int) -> list[str]:
        return self.send(
            events.Slept(
                instance=key(name), generation=self.generation(name), measured=measured or None
            )
        )

    def woke(self, name: str, **measured: int) -> list[str]:
        return self.send(
            events.Woke(
                instance=key(name), generation=self.generation(name), measured=measured or None
            )
        )

    def deferred(self, name: str, reason: str = "another router took the room") -> list[str]:
        return self.send(
            events.Deferred(instance=key(name), generation=self.generation(name), reason=reason)
        )

    def release(self, request: int) -> list[str]:
        """End all leases that *request* was granted."""
        done: list[str] = []
        for lease in self.granted[request]:
            done += self.send(events.Released(lease))
        return done

    def cancel(self, request: int) -> list[str]:
        return self.send(events.Cancelled(request))

    def unload(self, name: str, *, model: str | None = None, force: bool = False) -> list[str]:
        return self.send(events.Unload(instance=key(name), model=model or name, force=force))

    def put_to_sleep(self, name: str, level: SleepLevel = "full") -> list[str]:
        return self.send(events.PutToSleep(instance=key(name), level=level))

    def predict(self, name: str) -> list[str]:
        return self.send(events.Predicted(instance=key(name), model=name))

    def tick(self, seconds: float = 0.0) -> list[str]:
        """Let *seconds* go by, and tell the scheduler the time."""
        self.now += seconds
        self.timer = None
        return self.send(events.Tick())

    # What is often wanted

    def serve(self, name: str, **fields: Any) -> int:
        """Load *name* and leave it leased; return the request."""
        request = self.ask(name, **fields)
        self.loaded(name)
        assert request in self.granted
        return request

    def idle(self, *names: str, **fields: Any) -> None:
        """Load *names* and leave them idle; time passes, so that their ages differ."""
        for name in names:
            self.now += 1.0
            self.release(self.serve(name, **fields))

    def asleep(self, name: str, level: SleepLevel = "full", **measured: int) -> None:
        """Load *name* and put it to sleep."""
        self.idle(name)
        self.put_to_sleep(name, level)
        self.slept(name, **measured)
        assert self.state(name) is InstanceState.SLEEPING

    def instance(self, name: str) -> Instance:
        instance = self.scheduler.instance(key(name))
        assert instance is not None
        return instance

    def state(self, name: str) -> InstanceState:
        instance = self.scheduler.instance(key(name))
        return instance.state if instance is not None else InstanceState.UNLOADED

    def generation(self, name: str) -> int:
        return self.instance(name).generation

    def reasons(self, name: str, kind: str | None = None) -> list[str]:
        """Return what was announced about *name*, the oldest first."""
        return [
            each.reason
            for each in self.announced
            if each.instance == key(name) and kind in (None, each.kind)
        ]

    def _note(self, action: actions.Action) -> None:
        match action:
            case actions.AskPrice(instance):
                self.asked_prices.append(instance.path)
            case actions.Download(instance):
                self.did.append(f"download {instance.path}")
            case actions.CancelDownload(instance):
                self.did.append(f"cancel download {instance.path}")
            case actions.Start(instance, _, cost):
                self.started[instance.path] = cost
                self.did.append(f"start {instance.path}")
            case actions.Sleep(instance, _, level):
                self.did.append(f"sleep {instance.path} {level}")
            case actions.Wake(instance):
                self.did.append(f"wake {instance.path}")
            case actions.Stop(instance):
                self.did.append(f"stop {instance.path}")
            case actions.Kill(instance):
                self.did.append(f"kill {instance.path}")
            case actions.Shed(holder, pool, n_bytes):
                self.did.append(f"shed {holder} {pool} {n_bytes}")
            case actions.Grant(request, leases):
                self.granted[request] = leases
                self.did.append(f"grant {request}")
            case actions.Reject(request, failure):
                self.rejected[request] = failure
                self.did.append(f"reject {request}: {failure.kind}")
            case actions.Revoke(lease, failure):
                self.revoked[lease] = failure
            case actions.SetTimer(at_seconds):
                self.timer = at_seconds
            case actions.Announce():
                self.announced.append(action)
