"""The router: what doors, dialects and app code talk to."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import anyio.to_thread
import msgspec

from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.errors import ConfigError, QueueTimeoutError, RouterNotRunningError
from llm_router_mw.protocols import Clock, LeaseContract, OnQueued, RouteGroup
from llm_router_mw.router.bridge import BridgedEvents, BridgedLease
from llm_router_mw.router.hub import EventHub, Subscription
from llm_router_mw.router.lease import Lease
from llm_router_mw.router.lifespans import beside
from llm_router_mw.router.registry import load_registry
from llm_router_mw.router.running import Running, start
from llm_router_mw.scheduler import events
from llm_router_mw.types import (
    AS_USUAL,
    InstanceState,
    Model,
    ModelView,
    Purged,
    RouterEvent,
    RouterView,
    SleepLevel,
    StoredSnapshot,
    Task,
    Wish,
    WishOptions,
)

T = TypeVar("T")


class Router:
    """Many models behind one object. Enter it (``async with``) before use.

    It belongs to the event loop in which it was entered; its methods may be awaited from any
    other loop too. Options are those of ``RouterConfig`` and ``LoadOptions``, as keywords.

    Raises:
        ConfigError: an option is wrong.
        PluginError: a plugin is.
    """

    def __init__(
        self,
        config: RouterConfig | None = None,
        *,
        plugins: Iterable[object] = (),
        clock: Clock = time.monotonic,
        **options: Any,
    ) -> None:
        if config is not None and options:
            raise ConfigError("give a config or options, not both")
        self.config = config if config is not None else parse_config(options)
        self._clock = clock
        self._registry = load_registry(self.config, plugins)
        # Looked up once here, so that a wrong name is told before anything starts.
        self._registry.engine(self.config.engine)
        self._registry.policy(self.config.eviction_policy)
        self._registry.placement(self.config.placement_policy)
        self._hub = EventHub(tuple(self._registry.observers.values()), self._registry.faults)
        self._entered = False
        self._running: Running | None = None
        self._stack = AsyncExitStack()

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def route_groups(self) -> Mapping[str, RouteGroup]:
        """What plugins would add to the routes of a door, by name."""
        return self._registry.route_groups

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this router is already running, or has not closed yet")
        stack = AsyncExitStack()
        try:
            self._entered = True
            stack.callback(self._left)
            self._running = await start(
                stack, self.config, self._registry, self._hub, self._clock, self._closing
            )
            lifespans, strict = self._registry.lifespans, self.config.strict_plugins
            await stack.enter_async_context(
                beside(self, lifespans, self._registry.faults, strict=strict)
            )
        except BaseException:
            # Not by the stack's own exit: the task groups in it would wrap the error.
            await stack.aclose()
            raise
        self._stack = stack
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The error is the caller's: passed into the task groups below it would come out wrapped.
        await self._stack.aclose()

    def _left(self) -> None:
        self._entered = False

    def _closing(self) -> None:
        self._running = None
        self._hub.close()

    # Leases

    @overload
    def acquire(
        self,
        model: str,
        /,
        **options: Unpack[WishOptions],
    ) -> AbstractAsyncContextManager[LeaseContract]: ...
    @overload
    def acquire(
        self,
        model: str,
        second: str,
        /,
        *models: str,
        **options: Unpack[WishOptions],
    ) -> AbstractAsyncContextManager[tuple[LeaseContract, ...]]: ...
    @asynccontextmanager
    async def acquire(
        self,
        *models: str,
        **options: Unpack[WishOptions],
    ) -> AsyncIterator[Any]:
        """Load or wait for the models and hold them; several names are taken all at once.

        *options* are fields of ``Wish``:

        priority: added to the models' own; higher goes first in the queue.
        keep_alive_seconds: how long the models stay afterwards: 0 releases them, -1 keeps them,
            None is as configured. At most ``max_keep_alive_seconds``.
        timeout_seconds: how long to wait at most, within ``queue_timeout_seconds``.
        autoload: whether they may be loaded for this; None is as configured.
        owner: whose request it is, for what is learned of each owner's habits.

        Raises:
            LLMRouterError: a model is unknown, cannot be loaded, or no room came in time.
        """
        leases = await self.leases(models, Wish(**options))
        try:
            yield leases[0] if len(leases) == 1 else leases
        finally:
            for lease in leases:
                lease.release()

    async def lease(
        self,
        model: str,
        wish: Wish = AS_USUAL,
        *,
        on_queued: OnQueued | None = None,
    ) -> LeaseContract:
        """As ``acquire`` of one model, for callers that release by themselves.

        *on_queued* is told where the request stands while it waits, on the router's loop.
        """
        return (await self.leases((model,), wish, on_queued=on_queued))[0]

    async def leases(
        self,
        names: Sequence[str],
        wish: Wish = AS_USUAL,
        *,
        on_queued: OnQueued | None = None,
    ) -> tuple[LeaseContract, ...]:
        """As ``lease``, of several models at once: all or none."""
        running = self._require_running()
        if wish.autoload is None:
            wish = msgspec.structs.replace(wish, autoload=self.config.models_autoload)

        async def request() -> tuple[Lease, ...]:
            models = [running.catalog.resolve(name) for name in names]
            leases = await running.guards.guarded(
                models,
                wish,
                lambda: self._granted(running, models, wish, on_queued),
            )
            for granted in models:
                running.foresee(granted, wish.owner)
            return leases

        if running.bridge.is_home:
            return await request()
        leases = await running.bridge.run(request, undo=_release_all)
        return tuple(BridgedLease(running.bridge, lease) for lease in leases)

    async def _granted(
        self, running: Running, models: Sequence[Model], wish: Wish, on_queued: OnQueued | None
    ) -> tuple[Lease, ...]:
        patience = self.config.queue_timeout_seconds
        if wish.timeout_seconds is not None:
            patience = min(patience, wish.timeout_seconds)
        with anyio.move_on_after(patience) as bound:
            await self._check(running, models)
        if bound.cancelled_caught:
            raise QueueTimeoutError(
                f"it was not known within {patience:g} s what {models[0].id!r} needs; ask again"
            )
        return await running.conductor.request(models, wish, hold=True, on_queued=on_queued)

    async def _usable(self, running: Running, names: Iterable[str]) -> list[Model]:
        """Return the models called *names*, whose files have been checked where it matters."""
        models = [running.catalog.resolve(name) for name in names]
        await self._check(running, models)
        return models

    async def _check(self, running: Running, models: Iterable[Model]) -> None:
        for model in models:
            if running.state(model) is not InstanceState.LOADED:
                # What has yet to be downloaded is checked by its headers, when it is priced.
                if await running.library.find(model.path):
                    located = running.library.located(model)
                    await anyio.to_thread.run_sync(running.catalog.check_file, located)
                await running.conductor.know_price(model.instance_key)

    # Management

    async def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""
        running = self._require_running()

        async def ask() -> None:
            models = await self._usable(running, (model,))
            if wait:
                await running.conductor.request(models, Wish(), hold=False)
            else:
                running.conductor.request_later(models)

        await self._at_home(running, ask)

    async def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        """Unload *model*; a busy one drains first, or is cut off with *force*.

        Returns:
            False if it is still draining when the call returns.
        """
        running = self._require_running()

        async def ask() -> bool:
            found = running.catalog.resolve(model)
            key = found.instance_key
            running.conductor.dispatch(events.Unload(instance=key, model=found.id, force=force))
            # Other models may go on using the instance: then there is no exit to wait for.
            if wait and running.state(found) in _LEAVING:
                await running.conductor.workers.exited(key)
            return running.state(found) is not InstanceState.DRAINING

        return await self._at_home(running, ask)

    async def sleep(self, model: str, *, level: SleepLevel = "full", wait: bool = True) -> bool:
        """Put *model*'s instance to sleep; a busy one drains first. One not loaded stays as it is.

        Returns:
            False if it is still draining when the call returns.
        """
        running = self._require_running()

        async def ask() -> bool:
            found = running.catalog.resolve(model)
            key = found.instance_key
            running.conductor.dispatch(events.PutToSleep(instance=key, level=level))
            if wait:
                await self._until(running, found, lambda state: state not in _FALLING)
            return running.state(found) is not InstanceState.DRAINING

        return await self._at_home(running, ask)

    async def wake(self, model: str, *, wait: bool = True) -> None:
        """Have *model* ready: one that sleeps wakes, one that is not loaded at all is loaded."""
        await self.load(model, wait=wait)

    async def purge_cache(self, model: str | None = None) -> Purged:
        """Remove all saved conversations, or those of *model*'s file.

        What contexts of loaded models hold is not touched.
        """
        running = self._require_running()
        path = None
        if model is not None:
            path = running.library.file(running.catalog.resolve(model).path)

        async def ask() -> Purged:
            purged = [await store.purge(path) for store in self._registry.stores]
            return Purged(
                snapshots=sum(each.snapshots for each in purged),
                size_bytes=sum(each.size_bytes for each in purged),
            )

        return await self._at_home(running, ask)

    async def _until(
        self, running: Running, model: Model, reached: Callable[[InstanceState], bool]
    ) -> None:
        """Return when the state of *model* is as wanted.

        Raises:
            RouterNotRunningError: the router closes first.
        """
        subscription = self._hub.subscribe(self._snapshot)
        try:
            while not reached(running.state(model)):
                if await anext(subscription, None) is None:
                    raise RouterNotRunningError("the router is closing")
        finally:
            self._hub.unsubscribe(subscription)

    async def _at_home(
        self,
        running: Running,
        call: Callable[[], Awaitable[T]],
        undo: Callable[[T], None] | None = None,
    ) -> T:
        return await (call() if running.bridge.is_home else running.bridge.run(call, undo))

    # Monitoring

    def models(self) -> tuple[ModelView, ...]:
        """All models and their states, at once: nothing is woken, loaded or waited for."""
        running = self._require_running()
        return tuple(running.view(model) for model in running.catalog.models())

    def overview(self) -> RouterView:
        """The router as a whole, at once."""
        return self._require_running().overview()

    async def cached(self) -> tuple[StoredSnapshot, ...]:
        """Saved conversations, the latest used first."""
        running = self._require_running()

        async def ask() -> tuple[StoredSnapshot, ...]:
            return tuple(each for store in self._registry.stores for each in store.snapshots())

        return await self._at_home(running, ask)

    async def tasks(self, model: str) -> tuple[Task, ...]:
        """What *model*'s instance works on; wakes nothing.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        running = self._require_running()

        async def ask() -> tuple[Task, ...]:
            return running.conductor.tasks_of(running.catalog.resolve(model).instance_key)

        return await self._at_home(running, ask)

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[RouterEvent]]:
        """Subscribe to events; the first one is a snapshot of all models."""
        running = self._require_running()

        async def subscribe() -> Subscription:
            return self._hub.subscribe(self._snapshot)

        subscription = await self._at_home(running, subscribe, self._hub.unsubscribe)
        try:
            home = running.bridge.is_home
            yield subscription if home else BridgedEvents(running.bridge, subscription)
        finally:
            running.bridge.run_soon(lambda: self._hub.unsubscribe(subscription))

    def _snapshot(self) -> RouterEvent:
        return RouterEvent(
            kind="snapshot", model="*", at_seconds=self._clock(), models=self.models()
        )

    def _require_running(self) -> Running:
        if self._running is None:
            raise RouterNotRunningError(
                "the router is not running: enter it with 'async with', or let the app's "
                "lifespan start it"
            )
        return self._running


_LEAVING = frozenset({InstanceState.DRAINING, InstanceState.STOPPING})
_FALLING = frozenset({InstanceState.DRAINING, InstanceState.FALLING_ASLEEP})


def _release_all(leases: tuple[Lease, ...]) -> None:
    for lease in leases:
        lease.release()
