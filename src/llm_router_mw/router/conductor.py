"""Feeds the scheduler with events and carries out what it decides.

Everything runs on one event loop, so the state needs no locks: an event is taken in, and all its
actions are carried out, before the loop does anything else.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import anyio.abc
from msgspec import structs

from llm_router_mw.errors import LLMRouterError, ModelLoadError, error_from
from llm_router_mw.hub.hub import OnProgress
from llm_router_mw.protocols import Clock, OnQueued
from llm_router_mw.router.arithmetic import in_words
from llm_router_mw.router.downloads import Downloads
from llm_router_mw.router.hub import EventHub
from llm_router_mw.router.lease import Lease
from llm_router_mw.router.workers import Workers
from llm_router_mw.scheduler import Scheduler, actions, events
from llm_router_mw.types import (
    Failure,
    InstanceKey,
    InstanceState,
    Model,
    ModelView,
    Price,
    QueuePlace,
    RouterEvent,
    Task,
    Wish,
)

logger = logging.getLogger("llm_router_mw.router")

_TROUBLE = frozenset({"worker_died", "load_failed"})
_QUIET = frozenset({"queued", "refused"})
"""Of each request, and told to those who listen: too many for the log."""
_PLACE_EVERY_SECONDS = 1.0
"""How often those who wait are told where they stand."""


class Pending:
    """A request that waits for its grant."""

    def __init__(self, models: Sequence[Model], on_queued: OnQueued | None) -> None:
        self.models = models
        self.on_queued = on_queued
        self.place: QueuePlace | None = None
        """As was last said."""
        self.leases: tuple[Lease, ...] | None = None
        self.failure: Failure | None = None
        self.done = anyio.Event()


class Conductor:
    """The I/O shell around a scheduler."""

    def __init__(
        self,
        scheduler: Scheduler,
        hub: EventHub,
        tasks: anyio.abc.TaskGroup,
        *,
        clock: Clock,
        names: Mapping[InstanceKey, Sequence[str]],
        view: Callable[[str], ModelView],
        appraise: Callable[[InstanceKey], Awaitable[tuple[Price, ...]]],
        make_workers: Callable[[Conductor], Workers],
        shed: Callable[[str, str, int], None] = lambda holder, pool, n_bytes: None,
        is_missing: Callable[[str], bool] = lambda path: False,
        fetch: Callable[[str, OnProgress], Awaitable[None]] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._hub = hub
        self._tasks = tasks
        self._clock = clock
        self._names = names
        """The models of each instance: they all show its state."""
        self._view = view
        """Returns the picture of a model."""
        self._appraise = appraise
        self._shed = shed
        """Has a holder give memory of a pool back."""
        self._inbox: deque[events.Event] = deque()
        self._deciding = False
        self._next_request = 0
        self._pending: dict[int, Pending] = {}
        self._leases: dict[int, Lease] = {}
        self._outdated: set[InstanceKey] = set()
        """Those whose price is not the best that could be known."""
        self._being_priced: dict[InstanceKey, anyio.Event] = {}
        """Set once the price of an instance is known that somebody asks for first."""
        self._timer_at: float | None = None
        self._timer_moved = anyio.Event()
        self._somebody_asks = anyio.Event()
        """Somebody who waits wants to be told where he stands."""
        self._is_missing = is_missing
        """Whether the file of a path must be fetched before it can be loaded."""
        self.workers = make_workers(self)
        self.downloads = Downloads(
            tasks, self.dispatch, fetch or _nothing_to_fetch, self.downloaded_more, clock
        )

    # Verbs

    async def request(
        self, models: Sequence[Model], wish: Wish, *, hold: bool, on_queued: OnQueued | None = None
    ) -> tuple[Lease, ...]:
        """Return one lease per model once all of them are ready (none without *hold*).

        Raises:
            LLMRouterError: the scheduler refused, or a load failed.
        """
        event = self._request_event(models, wish, hold=hold)
        pending = self._pending[event.id] = Pending(models, on_queued)
        try:
            self.dispatch(event)
            if on_queued is not None and not pending.done.is_set():
                self._tell_place(event.id, pending)
                self._somebody_asks.set()
            await pending.done.wait()
        except BaseException:  # cancelled, perhaps in the moment of the grant
            if not pending.done.is_set():
                self.dispatch(events.Cancelled(event.id))
            for lease in pending.leases or ():
                lease.release()
            raise
        finally:
            del self._pending[event.id]
        if pending.failure is not None:
            raise error_from(pending.failure)
        assert pending.leases is not None
        return pending.leases

    def request_later(self, models: Sequence[Model]) -> None:
        """Ask for *models* to be loaded; how it went is seen in the events."""
        self.dispatch(self._request_event(models, Wish(), hold=False))

    def _request_event(self, models: Sequence[Model], wish: Wish, *, hold: bool) -> events.Request:
        self._next_request += 1
        return events.Request(
            id=self._next_request,
            instances=tuple(model.instance_key for model in models),
            models=tuple(model.id for model in models),
            autoload=wish.autoload is not False,
            hold=hold,
            priority=wish.priority,
            keep_alive_seconds=wish.keep_alive_seconds,
            timeout_seconds=wish.timeout_seconds,
        )

    def tasks_of(self, key: InstanceKey) -> tuple[Task, ...]:
        """Return what the instance works on."""
        # The copy is made in one step, so monitoring may ask from another thread.
        leases = [each for each in list(self._leases.values()) if each.instance_key == key]
        return tuple(task for lease in leases for task in lease.tasks)

    def dispatch(self, event: events.Event) -> None:
        """Take *event* in. An action may cause events of its own: they wait for their turn."""
        self._inbox.append(event)
        if self._deciding:
            return
        self._deciding = True
        try:
            while self._inbox:
                for action in self._scheduler.decide(self._inbox.popleft(), self._clock()):
                    self._carry_out(action)
        finally:
            self._deciding = False

    async def close(self) -> None:
        """Refuse what waits, end all leases, stop all workers; return when they are gone."""
        self.dispatch(events.Shutdown())
        await self.workers.all_exited()

    # Actions

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.AskPrice(instance):
                self._tasks.start_soon(self._price, instance)
            case actions.Download(instance, generation):
                self.downloads.start(instance, generation)
            case actions.CancelDownload(instance, generation):
                self.downloads.cancel(instance, generation)
            case actions.Start(instance, generation, price):
                self.workers.start(instance, generation, price)
            case actions.Sleep(instance, generation, level):
                self.workers.sleep(instance, generation, level)
            case actions.Wake(instance, generation):
                self.workers.wake(instance, generation)
            case actions.Stop(instance, generation):
                self.workers.stop(instance, generation)
            case actions.Kill(instance, generation):
                self.workers.kill(instance, generation)
            case actions.Shed(holder, pool, n_bytes):
                self._shed(holder, pool, n_bytes)
            case actions.Grant(request, leases):
                self._grant(request, leases)
            case actions.Reject(request, failure):
                self._reject(request, failure)
            case actions.Revoke(lease, failure):
                if (held := self._leases.get(lease)) is not None:
                    held.revoke(error_from(failure))
            case actions.SetTimer(at_seconds):
                self._set_timer(at_seconds)
            case actions.Announce():
                self._announce(action)

    async def know_price(self, key: InstanceKey) -> None:
        """See that the scheduler knows what *key* needs, so that a request is decided at once."""
        instance = self._scheduler.instance(key)
        if (
            instance is not None
            and instance.prices is not None
            and key not in self._outdated
            # Files of the hub's cache come and go without our doing.
            and (instance.has_worker or instance.is_missing == self._is_missing(key.path))
        ):
            return
        done = self._being_priced.get(key)
        if done is None:
            done = self._being_priced[key] = anyio.Event()
            # Not in the task of who asks first: he may leave, and others wait for it too.
            self._tasks.start_soon(self._price_first, key, done)
        await done.wait()

    async def _price_first(self, key: InstanceKey, done: anyio.Event) -> None:
        try:
            await self._price(key)
        finally:
            # If this was cut off, the scheduler asks by itself.
            del self._being_priced[key]
            done.set()

    def outdate_price(self, key: InstanceKey) -> None:
        """Note that more is known now of what *key* needs: it is priced again when it is wanted."""
        self._outdated.add(key)

    async def _price(self, key: InstanceKey) -> None:
        self._outdated.discard(key)
        try:
            prices = await self._appraise(key)
        except LLMRouterError as error:
            self.dispatch(events.PriceFailed(instance=key, failure=error.to_failure()))
        except Exception as error:  # a plugin's own failure must not end the router
            logger.exception("%s: its memory could not be estimated", key)
            failure = ModelLoadError(f"its memory could not be estimated: {error}").to_failure()
            self.dispatch(events.PriceFailed(instance=key, failure=failure))
        else:
            is_missing = self._is_missing(key.path)
            self.dispatch(events.Priced(instance=key, prices=prices, is_missing=is_missing))

    def _grant(self, request_id: int, lease_ids: tuple[int, ...]) -> None:
        pending = self._pending.get(request_id)
        if pending is None or pending.done.is_set():
            # Nobody is there to hold them: the request has left.
            for lease_id in lease_ids:
                self.dispatch(events.Released(lease_id))
            return
        # Not strict: a request that only asked for loading gets no leases.
        pending.leases = tuple(
            self._make_lease(lease_id, model)
            for lease_id, model in zip(lease_ids, pending.models, strict=False)
        )
        pending.done.set()

    def _reject(self, request_id: int, failure: Failure) -> None:
        pending = self._pending.get(request_id)
        if pending is None:
            # A load in advance, or by hand: nobody waits who could be told.
            logger.warning("nothing is loaded as was asked for: %s", failure.message)
            return
        pending.failure = failure
        pending.done.set()

    def _make_lease(self, lease_id: int, model: Model) -> Lease:
        worker = self.workers.get(model.instance_key)
        assert worker is not None
        assert worker.engine is not None
        assert worker.info is not None

        def released() -> None:
            del self._leases[lease_id]
            self.dispatch(events.Released(lease_id))

        lease = self._leases[lease_id] = Lease(model, worker.engine, worker.info, released)
        return lease

    def _announce(self, announcement: actions.Announce) -> None:
        names = self._names[announcement.instance]
        if announcement.kind not in _QUIET:
            level = logging.WARNING if announcement.kind in _TROUBLE else logging.INFO
            state, reason = announcement.state, announcement.reason
            sums = in_words(announcement.data)
            logger.log(level, "%s: %s: %s%s", ", ".join(names), state, reason, sums)
        for model in names:
            self._hub.publish(
                RouterEvent(
                    kind=announcement.kind,
                    model=model,
                    at_seconds=self._clock(),
                    state=announcement.state,
                    reason=announcement.reason,
                    data=announcement.data,
                    models=(self._view(model),),
                )
            )

    def progressed(self, key: InstanceKey, value: float) -> None:
        """Tell observers how far the load of *key* is."""
        self._publish_progress(key, None, value)

    def downloaded_more(self, key: InstanceKey, value: float) -> None:
        """Tell observers how far the download of *key* is."""
        self._publish_progress(key, InstanceState.DOWNLOADING, value)

    def _publish_progress(
        self, key: InstanceKey, state: InstanceState | None, value: float
    ) -> None:
        for model in self._names[key]:
            self._hub.publish(
                RouterEvent(
                    kind="progress",
                    model=model,
                    at_seconds=self._clock(),
                    state=state,
                    data={"value": value},
                )
            )

    def handler_failed(self, key: InstanceKey, reason: str) -> None:
        """Tell observers of a sleep handler that failed with *key*."""
        for model in self._names[key]:
            self._hub.publish(
                RouterEvent(
                    kind="handler_failed", model=model, at_seconds=self._clock(), reason=reason
                )
            )

    # Time

    def _set_timer(self, at_seconds: float | None) -> None:
        wakes = math.inf if self._timer_at is None else self._timer_at
        self._timer_at = at_seconds
        # A timer that is put off may ring early: the scheduler then sets it again.
        if at_seconds is not None and at_seconds < wakes:
            self._timer_moved.set()

    async def run_timer(self) -> None:
        """Send the ticks that the scheduler asks for; runs as long as the router."""
        while True:
            self._timer_moved = anyio.Event()
            delay = math.inf if self._timer_at is None else self._timer_at - self._clock()
            with anyio.move_on_after(max(0.0, delay)) as scope:
                await self._timer_moved.wait()
            if scope.cancelled_caught:
                self._timer_at = None
                self.dispatch(events.Tick())

    async def run_places(self) -> None:
        """Tell those who wait where they stand; runs as long as the router."""
        while True:
            await self._somebody_asks.wait()
            self._somebody_asks = anyio.Event()
            while True:
                await anyio.sleep(_PLACE_EVERY_SECONDS)
                asking = [each for each in self._pending.items() if each[1].on_queued]
                if not asking:
                    break
                for request_id, pending in asking:
                    self._tell_place(request_id, pending)

    def _tell_place(self, request_id: int, pending: Pending) -> None:
        place = self._scheduler.queue_place(request_id)
        if place is None or pending.on_queued is None:
            return
        key = pending.models[0].instance_key
        worker, downloaded = self.workers.get(key), self.downloads.progress(key)
        if downloaded is not None:
            place = structs.replace(place, progress=downloaded, is_downloading=True)
        elif worker is not None and worker.info is None:
            place = structs.replace(place, progress=worker.progress)
        if place != pending.place:
            pending.place = place
            try:
                pending.on_queued(place)
            except Exception:  # app code's own failure must not end the router
                logger.exception("a request could not be told its place in the queue")
                pending.on_queued = None


async def _nothing_to_fetch(path: str, on_progress: OnProgress) -> None:
    """Return at once: all files are here."""
