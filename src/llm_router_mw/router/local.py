"""The router: what doors, dialects and app code talk to."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import anyio
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from llm_router_mw.catalog import Catalog
from llm_router_mw.config import RouterConfig, parse_config
from llm_router_mw.errors import ConfigError, RouterNotRunningError
from llm_router_mw.protocols import Clock, LeaseContract
from llm_router_mw.router.bridge import Bridge, BridgedEvents, BridgedLease
from llm_router_mw.router.conductor import Conductor
from llm_router_mw.router.hub import EventHub, Subscription
from llm_router_mw.router.lease import Lease
from llm_router_mw.router.plugins import collect, create_plugin_manager
from llm_router_mw.scheduler import Scheduler, events
from llm_router_mw.types import InstanceKey, InstanceState, Model, ModelView, RouterEvent

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Running:
    """What exists only while the router runs."""

    catalog: Catalog
    scheduler: Scheduler
    conductor: Conductor
    bridge: Bridge

    def state(self, model: Model) -> InstanceState:
        instance = self.scheduler.instance(model.instance_key)
        return instance.state if instance is not None else InstanceState.UNLOADED

    def view(self, model: Model) -> ModelView:
        key = model.instance_key
        instance = self.scheduler.instance(key)
        if instance is None:
            return ModelView(model=model)
        worker = self.conductor.worker(key)
        loading = instance.state is InstanceState.LOADING
        return ModelView(
            model=model,
            state=instance.state,
            leases=len(instance.leases),
            waiting=self.scheduler.waiting(key),
            progress=worker.progress if worker is not None and loading else None,
            error=instance.failure.message if instance.failure is not None else None,
            info=worker.info if worker is not None else None,
        )


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
        self._registry = collect(create_plugin_manager(plugins), self.config)
        self._engine = self._registry.engine(self.config.engine)
        self._policy = self._registry.policy(self.config.eviction_policy)
        self._hub = EventHub(tuple(self._registry.observers.values()))
        self._entered = False
        self._running: _Running | None = None
        self._stack = AsyncExitStack()

    @property
    def running(self) -> bool:
        return self._running is not None

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this router is already running, or has not closed yet")
        stack = AsyncExitStack()
        try:
            self._running = await self._start(stack)
        except BaseException:
            # Not by the stack's own exit: the task groups in it would wrap the error.
            await stack.aclose()
            raise
        self._stack = stack
        return self

    async def _start(self, stack: AsyncExitStack) -> _Running:
        """Start everything; *stack* then holds how it is to be ended, also if this raises."""
        self._entered = True
        stack.callback(self._left)
        sources = tuple(self._registry.sources.values())
        catalog = await anyio.to_thread.run_sync(Catalog, sources)
        scheduler = Scheduler(
            self._policy,
            models_max=self.config.models_max,
            max_queue=self.config.max_queue,
            max_wait_seconds=self.config.max_wait_seconds,
            queue_timeout_seconds=self.config.queue_timeout_seconds,
            max_lease_seconds=self.config.max_lease_seconds,
        )
        portal = await stack.enter_async_context(BlockingPortal())
        stack.push_async_callback(portal.stop, cancel_remaining=True)
        await stack.enter_async_context(self._engine.running())
        tasks = await stack.enter_async_context(anyio.create_task_group())
        conductor = Conductor(
            scheduler,
            self._engine,
            self._hub,
            tasks,
            clock=self._clock,
            names=_names(catalog),
            chat_formats=dict(self._registry.chat_formats),
            stop_timeout_seconds=self.config.stop_timeout_seconds,
        )
        tasks.start_soon(conductor.run_timer)
        stack.callback(tasks.cancel_scope.cancel)
        stack.push_async_callback(self._close, conductor)
        return _Running(catalog, scheduler, conductor, Bridge(portal))

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

    async def _close(self, conductor: Conductor) -> None:
        self._running = None
        self._hub.close()
        with anyio.CancelScope(shield=True):  # bounded by the stop timeout
            await conductor.close()

    # Leases

    @overload
    def acquire(self, model: str, /) -> AbstractAsyncContextManager[LeaseContract]: ...
    @overload
    def acquire(
        self, model: str, second: str, /, *models: str
    ) -> AbstractAsyncContextManager[tuple[LeaseContract, ...]]: ...
    @asynccontextmanager
    async def acquire(self, *models: str) -> AsyncIterator[Any]:
        """Load or wait for the models and hold them; several names are taken all at once.

        Raises:
            LLMRouterError: a model is unknown, cannot be loaded, or no room came in time.
        """
        leases = await self._leases(models, autoload=None)
        try:
            yield leases[0] if len(leases) == 1 else leases
        finally:
            for lease in leases:
                lease.release()

    async def lease(self, model: str, *, autoload: bool | None = None) -> LeaseContract:
        """As ``acquire`` of one model, for callers that release by themselves."""
        return (await self._leases((model,), autoload=autoload))[0]

    async def _leases(
        self, names: tuple[str, ...], *, autoload: bool | None
    ) -> tuple[LeaseContract, ...]:
        running = self._require_running()
        allowed = self.config.models_autoload if autoload is None else autoload

        async def request() -> tuple[Lease, ...]:
            models = await self._usable(running, names)
            return await running.conductor.request(models, autoload=allowed, hold=True)

        if running.bridge.is_home:
            return await request()
        leases = await running.bridge.run(request, undo=_release_all)
        return tuple(BridgedLease(running.bridge, lease) for lease in leases)

    async def _usable(self, running: _Running, names: Iterable[str]) -> list[Model]:
        """Return the models called *names*, whose files have been checked where it matters."""
        models = [running.catalog.resolve(name) for name in names]
        for model in models:
            if running.state(model) is not InstanceState.LOADED:
                await anyio.to_thread.run_sync(running.catalog.check_file, model)
        return models

    # Management

    async def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""
        running = self._require_running()

        async def ask() -> None:
            models = await self._usable(running, (model,))
            if wait:
                await running.conductor.request(models, autoload=True, hold=False)
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
                await running.conductor.exited(key)
            return running.state(found) is not InstanceState.DRAINING

        return await self._at_home(running, ask)

    async def _at_home(
        self,
        running: _Running,
        call: Callable[[], Awaitable[T]],
        undo: Callable[[T], None] | None = None,
    ) -> T:
        return await (call() if running.bridge.is_home else running.bridge.run(call, undo))

    # Monitoring

    def models(self) -> tuple[ModelView, ...]:
        """All models and their states, at once: nothing is woken, loaded or waited for."""
        running = self._require_running()
        return tuple(running.view(model) for model in running.catalog.models())

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

    def _require_running(self) -> _Running:
        if self._running is None:
            raise RouterNotRunningError(
                "the router is not running: enter it with 'async with', or let the app's "
                "lifespan start it"
            )
        return self._running


_LEAVING = frozenset({InstanceState.DRAINING, InstanceState.STOPPING})


def _names(catalog: Catalog) -> dict[InstanceKey, list[str]]:
    """Return the ids of all models of each instance."""
    names: dict[InstanceKey, list[str]] = defaultdict(list)
    for model in catalog.models():
        names[model.instance_key].append(model.id)
    return names


def _release_all(leases: tuple[Lease, ...]) -> None:
    for lease in leases:
        lease.release()
