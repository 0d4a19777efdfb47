"""The router: what doors, dialects and app code talk to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio.to_thread
import msgspec

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ConfigError, QueueTimeoutError, RouterNotRunningError
from llm_router_mw.protocols import Clock, OnQueued, RouteGroup
from llm_router_mw.router.home import HomeRouter, not_running
from llm_router_mw.router.hub import EventHub
from llm_router_mw.router.lease import Lease
from llm_router_mw.router.lifespans import beside
from llm_router_mw.router.registry import load_registry
from llm_router_mw.router.running import Running, check, start
from llm_router_mw.router.stores import Stores
from llm_router_mw.scheduler import events
from llm_router_mw.types import (
    InstanceState,
    Model,
    ModelView,
    Purged,
    RouterView,
    SleepLevel,
    StoredSnapshot,
    Task,
    Wish,
)


class Router(HomeRouter):
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
        super().__init__(config, options, clock)
        if self.config.mode != "local":
            raise ConfigError(
                f"mode is {self.config.mode!r}, and a Router is of this process alone; use "
                "RemoteRouter, or give the options to the middleware instead of a router"
            )
        self._registry = load_registry(self.config, plugins)
        # Looked up once here, so that a wrong name is told before anything starts.
        self._registry.engine(self.config.engine)
        self._registry.policy(self.config.eviction_policy)
        self._registry.placement(self.config.placement_policy)
        self._hub = EventHub(tuple(self._registry.observers.values()), self._registry.faults)
        self._stores = Stores(self._registry.stores, self._registry.faults)
        self._running: Running | None = None

    @property
    def route_groups(self) -> Mapping[str, RouteGroup]:
        """What plugins would add to the routes of a door, by name."""
        return self._registry.route_groups

    def check(self) -> None:
        """See, before it is entered, whether options and directories fit; this reads disks.

        Raises:
            ConfigError: one does not.
        """
        check(self.config, self._registry)

    async def _start(self, stack: AsyncExitStack) -> None:
        self._running = await start(
            stack, self.config, self._registry, self._hub, self._clock, self._closing
        )
        self._bridge = self._running.bridge
        lifespans, strict = self._registry.lifespans, self.config.strict_plugins
        await stack.enter_async_context(
            beside(self, lifespans, self._registry.faults, strict=strict)
        )

    def _closing(self) -> None:
        self._running = None
        super()._closing()

    # Leases

    async def _grant(
        self, names: Sequence[str], wish: Wish, on_queued: OnQueued | None
    ) -> tuple[Lease, ...]:
        running = self._require_running()
        if wish.autoload is None:
            wish = msgspec.structs.replace(wish, autoload=self.config.models_autoload)
        models = [running.catalog.resolve(name) for name in names]
        leases = await running.guards.guarded(
            models,
            wish,
            lambda: self._granted(running, models, wish, on_queued),
        )
        for granted in models:
            running.foresee(granted, wish.owner)
        return leases

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

        await self._at_home(ask)

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

        return await self._at_home(ask)

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

        return await self._at_home(ask)

    async def purge_cache(self, model: str | None = None) -> Purged:
        """Remove all saved conversations, or those of *model*'s file.

        What contexts of loaded models hold is not touched.
        """
        running = self._require_running()
        path = None
        if model is not None:
            path = running.library.file(running.catalog.resolve(model).path)
        return await self._at_home(lambda: self._stores.purge(path))

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

        async def ask() -> tuple[StoredSnapshot, ...]:
            return self._stores.snapshots()

        return await self._at_home(ask)

    async def tasks(self, model: str) -> tuple[Task, ...]:
        """What *model*'s instance works on; wakes nothing.

        Raises:
            ModelNotFoundError: there is no such model.
        """
        running = self._require_running()

        async def ask() -> tuple[Task, ...]:
            return running.conductor.tasks_of(running.catalog.resolve(model).instance_key)

        return await self._at_home(ask)

    def _require_running(self) -> Running:
        running = self._running
        if running is None:
            raise not_running()
        return running


_LEAVING = frozenset({InstanceState.DRAINING, InstanceState.STOPPING})
_FALLING = frozenset({InstanceState.DRAINING, InstanceState.FALLING_ASLEEP})
