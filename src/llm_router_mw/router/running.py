"""What exists only while a router runs, and how it is started and ended."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import anyio
import anyio.abc
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from llm_router_mw.catalog import Catalog
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.faults import Faults
from llm_router_mw.memory.inventory import Inventory
from llm_router_mw.memory.machine_lock import MachineLock
from llm_router_mw.memory.placement import AutoPlacement
from llm_router_mw.memory.state_identity import state_identity
from llm_router_mw.protocols import Clock
from llm_router_mw.router.appraiser import Appraiser
from llm_router_mw.router.bridge import Bridge
from llm_router_mw.router.conductor import Conductor
from llm_router_mw.router.dry_runs import DryRuns
from llm_router_mw.router.gate import Gate
from llm_router_mw.router.guards import Guards
from llm_router_mw.router.holdings import Holdings
from llm_router_mw.router.hub import EventHub
from llm_router_mw.router.library import Library, open_library
from llm_router_mw.router.placing import Placing
from llm_router_mw.router.registry import Registry
from llm_router_mw.router.sleep_handlers import SleepHandlers
from llm_router_mw.router.terms import keeps_states, preloads, terms_of
from llm_router_mw.router.warmth import Warmth
from llm_router_mw.router.watcher import MemoryWatcher
from llm_router_mw.router.workers import Worker, Workers
from llm_router_mw.scheduler import Limits, Scheduler, events
from llm_router_mw.scheduler.demand import SLOTS, WORKERS
from llm_router_mw.scheduler.prediction import NextModel
from llm_router_mw.types import (
    HOST,
    InstanceKey,
    InstanceState,
    Model,
    ModelView,
    Price,
    RouterView,
)

logger = logging.getLogger("llm_router_mw.router")


@dataclass(frozen=True, slots=True)
class Running:
    """A router's parts, put together."""

    config: RouterConfig
    catalog: Catalog
    library: Library
    scheduler: Scheduler
    conductor: Conductor
    bridge: Bridge
    guards: Guards
    faults: Faults
    habits: NextModel | None
    """What clients ask for next; None if nothing is loaded on a guess."""

    def foresee(self, model: Model, owner: str) -> None:
        """Note that *owner* asked for *model*, and load what probably follows if there is room."""
        if self.habits is None:
            return
        self.habits.observe(owner, model.id)
        following = self.habits.next(owner, model.id)
        if following is not None:
            key = self.catalog.resolve(following).instance_key
            self.conductor.dispatch(events.Predicted(instance=key, model=following))

    def state(self, model: Model) -> InstanceState:
        """Return the state of *model*'s instance."""
        instance = self.scheduler.instance(model.instance_key)
        return instance.state if instance is not None else InstanceState.UNLOADED

    def view(self, model: Model) -> ModelView:
        """Return the picture of *model*."""
        return _view(model, self.scheduler, self.conductor)

    def overview(self) -> RouterView:
        """Return the picture of the router."""
        return RouterView(
            models_max=self.config.models_max,
            models_autoload=self.config.models_autoload,
            waiting=self.scheduler.total_waiting,
            plugin_failures=self.faults.counts,
        )


def check(config: RouterConfig, registry: Registry) -> None:
    """See whether there are such models as options speak of; this reads disks.

    Raises:
        ConfigError: an option or a directory is wrong.
    """
    models = _catalog(registry).models()
    terms_of(models, config)
    preloads(models, config)


def _catalog(registry: Registry) -> Catalog:
    sources, resolvers = registry.sources.values(), registry.resolvers.values()
    return Catalog(tuple(sources), tuple(resolvers), registry.faults)


async def start(
    stack: AsyncExitStack,
    config: RouterConfig,
    registry: Registry,
    hub: EventHub,
    clock: Clock,
    on_close: Callable[[], None],
) -> Running:
    """Start everything; *stack* then holds how it is to be ended, also if this raises.

    Raises:
        LLMRouterError: an option or a directory is wrong.
    """
    faults = registry.faults
    catalog = await anyio.to_thread.run_sync(_catalog, registry)
    library = await open_library(stack, config, catalog.models(), clock)
    terms = terms_of(catalog.models(), config)
    first = preloads(catalog.models(), config)
    scheduler = Scheduler(registry.policy(config.eviction_policy), _limits(config), faults)
    portal = await stack.enter_async_context(BlockingPortal())
    stack.push_async_callback(portal.stop, cancel_remaining=True)
    engine = registry.engine(config.engine)
    await stack.enter_async_context(engine.running())
    handlers = tuple(registry.sleep_handlers.values())
    for store in registry.stores:
        await stack.enter_async_context(store.running())
    tasks = await stack.enter_async_context(anyio.create_task_group())
    names = _names(catalog)
    lock = MachineLock()
    stack.callback(lock.leave)
    holdings = Holdings(
        tasks,
        lambda event: conductor.dispatch(event),
        lambda pool: scheduler.ledger.room(pool),
        faults,
    )
    watcher = MemoryWatcher(
        Inventory(
            tuple(registry.probes.values()),
            config.models_memory_margin,
            config.memory_limit,
            faults,
        ),
        lambda: conductor.workers.processes(),
        lambda readings, held: conductor.dispatch(
            events.MemoryObserved(pools=readings, instances=held)
        ),
        told=lambda: conductor.workers.told_bytes(),
        moving=lambda: conductor.workers.moving(),
        besides=holdings.bytes_by_pool,
        every_seconds=config.watch_memory_seconds,
    )
    placing = Placing(
        registry.placement(config.placement_policy),
        AutoPlacement(config.models_memory_margin),
        faults,
    )
    appraiser = Appraiser(
        placing,
        tuple(registry.estimators.values()),
        charge_mmap=config.charge_mmap,
        is_required=config.require_estimate,
        faults=faults,
    )

    dry_runs = DryRuns(
        config.dry_runs,
        registry.estimators.values(),
        placing,
        holdings.open("dry-run"),
        lambda: watcher.devices,
        faults,
    )

    def model_of(key: InstanceKey) -> Model:
        """Return a model of *key*, with the path of its file."""
        return library.located(catalog.resolve(names[key][0]))

    async def appraise(key: InstanceKey) -> tuple[Price, ...]:
        await library.look_into(key.path)
        model = model_of(key)
        if not library.is_missing(key.path):
            await dry_runs.before_price(model)
        return await anyio.to_thread.run_sync(appraiser.prices, model, watcher.devices)

    async def learn(key: InstanceKey, worker: Worker) -> None:
        if worker.price is None or worker.engine is None or worker.info is None:
            return
        pid, memory = worker.engine.pid, worker.info.memory
        if memory is None or pid is None:
            return
        model, placement = model_of(key), worker.price.placement
        used, devices = await watcher.held_by(pid), watcher.devices
        await anyio.to_thread.run_sync(appraiser.learn, model, placement, memory, devices, used)
        conductor.outdate_price(key)

    async def identify(key: InstanceKey, price: Price | None) -> str:
        models = [catalog.resolve(name) for name in names[key]]
        if not handlers or key.options.pooling or not keeps_states(models, config):
            return ""
        placement = None if price is None else price.placement
        try:
            return await anyio.to_thread.run_sync(
                state_identity, model_of(key), placement, os.environ
            )
        except LLMRouterError as error:
            logger.warning("%s: its conversations are not saved: %s", key, error)
            return ""

    sleep_handlers = SleepHandlers(
        handlers,
        tasks,
        faults,
        lambda key, reason: conductor.handler_failed(key, reason),
        models=names.__getitem__,
        hurried=lambda: scheduler.total_waiting > 0,
        timeout_seconds=config.sleep_handler_timeout_seconds,
        closing_seconds=config.stop_timeout_seconds,
    )

    def make_workers(conductor: Conductor) -> Workers:
        return Workers(
            engine,
            tasks,
            conductor.dispatch,
            conductor.progressed,
            clock=clock,
            chat_formats=registry.chat_formats,
            devices=lambda: watcher.devices,
            gate=Gate(lock, watcher.look, scheduler.ledger.room, holdings.settled),
            on_loaded=learn,
            handlers=sleep_handlers,
            identify=identify,
            faults=faults,
            stop_timeout_seconds=config.stop_timeout_seconds,
            file_of=library.file,
        )

    conductor = Conductor(
        scheduler,
        hub,
        tasks,
        clock=clock,
        names=names,
        view=lambda name: _view(catalog.resolve(name), scheduler, conductor),
        appraise=appraise,
        make_workers=make_workers,
        shed=holdings.shed,
        is_missing=library.is_missing,
        fetch=library.download,
    )
    stack.callback(tasks.cancel_scope.cancel)
    stack.push_async_callback(_close, conductor, on_close)
    stack.callback(sleep_handlers.close)
    conductor.dispatch(events.Catalogued(terms=terms))
    await watcher.look()
    holdings.open_for((engine, *handlers))
    lock.arrive()
    for background in (conductor.run_timer, conductor.run_places, watcher.run):
        tasks.start_soon(background)
    tasks.start_soon(_preload, conductor, [catalog.resolve(name) for name in first])
    here = {key: model_of(key) for key in names if not library.is_missing(key.path)}
    keys = {model.instance_key: key for key, model in here.items()}
    tasks.start_soon(
        dry_runs.run, here.values(), lambda found: conductor.outdate_price(keys[found])
    )
    guards = Guards(registry.guards.values(), faults, tasks, clock)
    if config.warm_weights:

        def sleeping() -> list[str]:
            return [
                library.file(each.key.path)
                for each in scheduler.instances()
                if each.level == "full" and each.state is InstanceState.SLEEPING
            ]

        tasks.start_soon(Warmth(sleeping, lambda: scheduler.ledger.room(HOST)).run)
    habits = NextModel() if config.prefetch else None
    bridge = Bridge(portal)
    return Running(config, catalog, library, scheduler, conductor, bridge, guards, faults, habits)


async def _preload(conductor: Conductor, models: Sequence[Model]) -> None:
    """Ask for *models*; each is priced before it is its turn, or a later one would pass it."""
    for model in models:
        await conductor.know_price(model.instance_key)
        conductor.request_later((model,))


async def _close(conductor: Conductor, on_close: Callable[[], None]) -> None:
    on_close()
    with anyio.CancelScope(shield=True):  # bounded by the stop timeout
        await conductor.close()


def _limits(config: RouterConfig) -> Limits:
    return Limits(**{name: getattr(config, name) for name in Limits.__struct_fields__})


def _names(catalog: Catalog) -> dict[InstanceKey, list[str]]:
    """Return the ids of all models of each instance."""
    names: dict[InstanceKey, list[str]] = defaultdict(list)
    for model in catalog.models():
        names[model.instance_key].append(model.id)
    return names


def _view(model: Model, scheduler: Scheduler, conductor: Conductor) -> ModelView:
    key = model.instance_key
    instance = scheduler.instance(key)
    if instance is None:
        return ModelView(model=model, pinned=scheduler.is_pinned(model.id))
    worker = conductor.workers.get(key)
    loading = instance.state in (InstanceState.LOADING, InstanceState.WAKING)
    place = scheduler.place_of(key)
    charge = scheduler.ledger.charge_of(key)
    return ModelView(
        model=model,
        state=instance.state,
        leases=len(instance.leases),
        waiting=scheduler.waiting(key),
        progress=worker.progress if worker and loading else conductor.downloads.progress(key),
        error=instance.failure.message if instance.failure is not None else None,
        info=worker.info if worker is not None else None,
        position=None if place is None else place.position,
        expected_wait_seconds=None if place is None else place.expected_wait_seconds,
        memory={pool: size for pool, size in charge.items() if _is_pool(pool, scheduler)},
        sleep_level=instance.level if instance.state is InstanceState.SLEEPING else None,
        degraded=instance.price is not None and instance.price.placement.degraded,
        pinned=instance.terms.pinned or scheduler.is_pinned(model.id),
    )


def _is_pool(resource: str, scheduler: Scheduler) -> bool:
    return resource not in (SLOTS, WORKERS) and scheduler.ledger.reading(resource) is not None
