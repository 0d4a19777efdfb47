"""The hooks. Each is called once, while a router is built, and supplies objects that work later.

All hooks are synchronous and return a list or a dict; what they return is checked against the
protocols of :mod:`llm_router_mw.protocols`. Two objects of one kind with one name are an error at
start-up. A plugin implements a hook with :data:`hookimpl`.
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
    """Supply model sources; they run on the router's side, off its event loop."""


@hookspec
def llm_router_register_model_resolvers(config: RouterConfig) -> Sequence[ModelResolver]:  # type: ignore[empty-body]
    """Supply model resolvers; they are asked on the router's loop for names that no model has."""


@hookspec
def llm_router_register_engines(config: RouterConfig) -> Sequence[EngineFactory]:  # type: ignore[empty-body]
    """Supply engine factories; ``config.engine`` chooses one by name."""


@hookspec
def llm_router_register_chat_formats(config: RouterConfig) -> dict[str, str]:  # type: ignore[empty-body]
    """Supply chat formats, name → ``package.module:Class``; the class is imported in workers."""


@hookspec
def llm_router_register_device_probes(config: RouterConfig) -> Sequence[DeviceProbe]:  # type: ignore[empty-body]
    """Supply device probes; they run on the router's side, off its event loop."""


@hookspec
def llm_router_register_estimators(config: RouterConfig) -> Sequence[Estimator]:  # type: ignore[empty-body]
    """Supply estimators of memory; they run on the router's side, off its event loop."""


@hookspec
def llm_router_register_placement_policies(config: RouterConfig) -> Sequence[PlacementPolicy]:  # type: ignore[empty-body]
    """Supply placement policies; they run on the router's side, off its event loop."""


@hookspec
def llm_router_register_eviction_policies(config: RouterConfig) -> Sequence[EvictionPolicy]:  # type: ignore[empty-body]
    """Supply eviction policies; ``config.eviction_policy`` chooses one by name."""


@hookspec
def llm_router_register_sleep_handlers(config: RouterConfig) -> Sequence[SleepHandler]:  # type: ignore[empty-body]
    """Supply sleep handlers; they run on the router's loop when a context ends or is back."""


@hookspec
def llm_router_register_request_guards(config: RouterConfig) -> Sequence[RequestGuard]:  # type: ignore[empty-body]
    """Supply request guards; they run on the router's loop, before and after each request."""


@hookspec
def llm_router_register_observers(config: RouterConfig) -> Sequence[Observer]:  # type: ignore[empty-body]
    """Supply observers; each is told every event, and one that raises does not hurt the others."""


@hookspec
def llm_router_register_routes(config: RouterConfig) -> Sequence[RouteGroup]:  # type: ignore[empty-body]
    """Supply groups of routes; a door serves those that its option ``routes`` names."""


@hookspec
def llm_router_register_commands(cli: click.Group) -> None:
    """Add commands to ``llm-router-mw``; called by the command, never by a router."""


@hookspec
def llm_router_lifespan(router: RouterContract) -> AbstractAsyncContextManager[None]:  # type: ignore[empty-body]
    """Return what is entered when *router* has started and left before it closes, on its loop."""
