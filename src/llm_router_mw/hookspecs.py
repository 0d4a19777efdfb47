"""The hooks. Each is called once, while a router is built, and supplies objects that work later.

All hooks are synchronous and return a list or a dict (None is an empty one); what they return is
checked against the protocols of :mod:`llm_router_mw.protocols`. Two objects of one kind with one
name are an error at start-up. A hook that raises is a broken plugin. What its objects do wrong
later is counted, and logged once, and no request but their own fails by it. A plugin implements a
hook with :data:`hookimpl`; ``docs/plugins/hooks.md`` has an example of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    import click

    from llm_router_mw.config import RouterConfig
    from llm_router_mw.protocols import (
        DeviceProbe,
        EngineFactory,
        Estimator,
        EvictionPolicy,
        ModelResolver,
        ModelSource,
        Observer,
        PlacementPolicy,
        RequestGuard,
        RouteGroup,
        RouterContract,
        SleepHandler,
    )

NAME = "llm_router_mw"
"""Of the plugin manager, the markers and the entry-point group."""

API_VERSION = 1
"""Of the hooks and the protocols behind them; raised when something is taken away or changed.

New hooks, and new arguments of hooks, come without a new version.
"""
OLDEST_API_VERSION = 1
"""Plugins that were written for this version still work; a version lives on for a year at least."""
API_ATTRIBUTE = "llm_router_api"
"""A plugin may have it: the version that it was written for."""

hookspec = HookspecMarker(NAME)
hookimpl = HookimplMarker(NAME)


@hookspec
def llm_router_register_model_sources(config: RouterConfig) -> Sequence[ModelSource]:  # type: ignore[empty-body]
    """Supply model sources.

    ``models()`` is called once, in a thread, when the router starts; it must not return None. An
    error of the package keeps the router from starting; at another one it starts without these.
    """


@hookspec
def llm_router_register_model_resolvers(config: RouterConfig) -> Sequence[ModelResolver]:  # type: ignore[empty-body]
    """Supply model resolvers.

    ``resolve()`` is called on the router's loop, on the way of each request whose model there is
    not: it must be quick. None, or an error, leaves it to the next one.
    """


@hookspec
def llm_router_register_engines(config: RouterConfig) -> Sequence[EngineFactory]:  # type: ignore[empty-body]
    """Supply engine factories; ``config.engine`` chooses one by name.

    ``running()`` is entered when the router starts, ``create()`` is awaited for each load, both on
    the router's loop. An error fails the start, or the load or the request that it happens to.
    """


@hookspec
def llm_router_register_chat_formats(config: RouterConfig) -> dict[str, str]:  # type: ignore[empty-body]
    """Supply chat formats, name → ``package.module:Class``; a load option chooses one by name.

    The class is imported and used in worker processes, not here. An error while it is made fails
    the load, a later one the request.
    """


@hookspec
def llm_router_register_device_probes(config: RouterConfig) -> Sequence[DeviceProbe]:  # type: ignore[empty-body]
    """Supply device probes.

    ``inventory()`` and ``used_bytes()`` are called in a thread, every few seconds and before each
    load; they must not return None. At an error what the probe would have said is left out.
    """


@hookspec
def llm_router_register_estimators(config: RouterConfig) -> Sequence[Estimator]:  # type: ignore[empty-body]
    """Supply estimators of memory.

    ``estimate()`` is called in a thread, for each placement that is thought of. None, or an error,
    leaves it to the next one; ours come last.
    """


@hookspec
def llm_router_register_placement_policies(config: RouterConfig) -> Sequence[PlacementPolicy]:  # type: ignore[empty-body]
    """Supply placement policies; ``config.placement_policy`` chooses one by name.

    ``place()`` is called in a thread, before a load is priced. It must not return None; where it
    fails, ``auto`` decides. An error of the package fails the load.
    """


@hookspec
def llm_router_register_eviction_policies(config: RouterConfig) -> Sequence[EvictionPolicy]:  # type: ignore[empty-body]
    """Supply eviction policies; ``config.eviction_policy`` chooses one by name.

    ``rank()`` is called inside the scheduler's step: it must be pure and take microseconds. It must
    not return None; where it fails, LRU decides.
    """


@hookspec
def llm_router_register_sleep_handlers(config: RouterConfig) -> Sequence[SleepHandler]:  # type: ignore[empty-body]
    """Supply sleep handlers.

    ``sleep()`` is awaited on the router's loop before an instance falls asleep or ends, and
    ``resume()`` when it is loaded or woken; both return None and have a time limit. One that fails
    is passed over: it never holds up an instance.
    """


@hookspec
def llm_router_register_request_guards(config: RouterConfig) -> Sequence[RequestGuard]:  # type: ignore[empty-body]
    """Supply request guards.

    ``before()`` is awaited on the router's loop before a request waits for anything: None lets it
    pass, an error of the package refuses it, any other refuses it with a 503. ``after()`` is
    awaited once for each that it let pass; what it raises hurts nobody.
    """


@hookspec
def llm_router_register_observers(config: RouterConfig) -> Sequence[Observer]:  # type: ignore[empty-body]
    """Supply observers.

    ``on_event()`` is called on the router's loop for each event, and must return at once. One that
    raises does not hurt the others.
    """


@hookspec
def llm_router_register_routes(config: RouterConfig) -> Sequence[RouteGroup]:  # type: ignore[empty-body]
    """Supply groups of routes; a door serves those that its option ``routes`` names.

    Their endpoints run as the host app's do, on its loop. An error of the package is answered as
    usual, another one with a 500 that tells nothing.
    """


@hookspec
def llm_router_register_commands(cli: click.Group) -> None:
    """Add commands to *cli*, ``llm-router-mw``; called by the command, never by a router.

    At an error its commands are left out.
    """


@hookspec
def llm_router_lifespan(router: RouterContract) -> AbstractAsyncContextManager[None]:  # type: ignore[empty-body]
    """Return what is entered when *router* has started and left before it closes, on its loop.

    None is nothing. One that fails is done without if its plugin was installed; one that was given
    keeps the router from starting.
    """
