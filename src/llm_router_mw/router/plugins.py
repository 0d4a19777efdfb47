"""Collects what plugins supply. A new plugin manager for each router: nothing is global."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, TypeVar

import pluggy

from llm_router_mw import hookspecs
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ConfigError, PluginConflictError, PluginLoadError
from llm_router_mw.protocols import (
    DeviceProbe,
    EngineFactory,
    Estimator,
    EvictionPolicy,
    ModelSource,
    Observer,
    PlacementPolicy,
)

logger = logging.getLogger("llm_router_mw.plugins")

DEFAULT_PLUGINS = (
    "llm_router_mw.default_plugins.model_sources",
    "llm_router_mw.default_plugins.engines",
    "llm_router_mw.default_plugins.chat_formats",
    "llm_router_mw.default_plugins.eviction",
    "llm_router_mw.default_plugins.device_probes",
    "llm_router_mw.default_plugins.estimators",
    "llm_router_mw.default_plugins.placement",
)
"""Our own parts register as anybody's do; first, so that others come before them."""

SuppliedT = TypeVar("SuppliedT")


@dataclass(frozen=True, slots=True)
class Registry:
    """What the plugins of one router supply, by name."""

    sources: Mapping[str, ModelSource]
    engines: Mapping[str, EngineFactory]
    policies: Mapping[str, EvictionPolicy]
    observers: Mapping[str, Observer]
    probes: Mapping[str, DeviceProbe]
    estimators: Mapping[str, Estimator]
    placements: Mapping[str, PlacementPolicy]
    chat_formats: Mapping[str, str]

    def engine(self, name: str) -> EngineFactory:
        """Return the engine called *name*; raises ConfigError if there is none."""
        return _chosen(self.engines, name, "engine")

    def policy(self, name: str) -> EvictionPolicy:
        """Return the eviction policy called *name*; raises ConfigError if there is none."""
        return _chosen(self.policies, name, "eviction_policy")

    def placement(self, name: str) -> PlacementPolicy:
        """Return the placement policy called *name*; raises ConfigError if there is none."""
        return _chosen(self.placements, name, "placement_policy")


def create_plugin_manager(plugins: Iterable[object] = ()) -> pluggy.PluginManager:
    """Return a manager with our defaults, the installed plugins and *plugins*, in this order.

    Raises:
        PluginLoadError: one of *plugins* has an unknown hook or a wrong signature. An installed
            plugin that is broken is named in the log and left out: it must not end its host.
    """
    manager = pluggy.PluginManager(hookspecs.NAME)
    manager.add_hookspecs(hookspecs)
    for name in DEFAULT_PLUGINS:
        _register(manager, import_module(name), name)
    for entry_point in metadata.entry_points(group=hookspecs.NAME):
        origin = _origin(entry_point)
        try:
            _register(manager, entry_point.load(), origin)
        except Exception as error:
            logger.error("plugin %s cannot be used and is left out: %s", origin, error)
    names: Counter[str] = Counter()
    for plugin in plugins:
        name = getattr(plugin, "__name__", type(plugin).__name__)
        names[name] += 1
        _register(manager, plugin, name if names[name] == 1 else f"{name} #{names[name]}")
    return manager


def collect(manager: pluggy.PluginManager, config: RouterConfig) -> Registry:
    """Call each hook once and return what was supplied.

    Raises:
        PluginLoadError: a hook raised, or supplied something of the wrong shape.
        PluginConflictError: two objects of one kind have one name.
    """

    def objects(hook: str, protocol: type[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for owner, supplied in _supplied(manager, hook, config):
            for thing in _as(list, supplied, owner, hook):
                # A class has all members too, and would fail when it is used.
                if isinstance(thing, type) or not isinstance(thing, protocol):
                    raise PluginLoadError(
                        f"plugin {owner!r}: {hook} supplied {thing!r}, which is no "
                        f"{protocol.__name__}"
                    )
                _add(found, owners, thing.name, thing, owner, protocol.__name__)
        return found

    formats: dict[str, str] = {}
    owners: dict[str, str] = {}
    hook = "llm_router_register_chat_formats"
    for owner, supplied in _supplied(manager, hook, config):
        for name, dotted in _as(dict, supplied, owner, hook).items():
            _add(formats, owners, name, dotted, owner, "chat format")
    return Registry(
        sources=objects("llm_router_register_model_sources", ModelSource),
        engines=objects("llm_router_register_engines", EngineFactory),
        policies=objects("llm_router_register_eviction_policies", EvictionPolicy),
        observers=objects("llm_router_register_observers", Observer),
        probes=objects("llm_router_register_device_probes", DeviceProbe),
        estimators=objects("llm_router_register_estimators", Estimator),
        placements=objects("llm_router_register_placement_policies", PlacementPolicy),
        chat_formats=formats,
    )


def _register(manager: pluggy.PluginManager, plugin: object, origin: str) -> None:
    try:
        manager.register(plugin, origin)
        manager.check_pending()  # a misspelt hook is silent until this asks
    except Exception as error:
        # A failed registration leaves the name behind, half done.
        if manager.has_plugin(origin):
            manager.unregister(name=origin)
        raise PluginLoadError(f"plugin {origin!r} cannot be registered: {error}") from error


def _origin(entry_point: metadata.EntryPoint) -> str:
    distribution = entry_point.dist
    if distribution is None:
        return entry_point.name
    return f"{entry_point.name} ({distribution.name} {distribution.version})"


def _supplied(
    manager: pluggy.PluginManager, hook: str, config: RouterConfig
) -> list[tuple[str, Any]]:
    """Call the implementations of *hook* one by one, so that an error has an owner."""
    results: list[tuple[str, Any]] = []
    # pluggy's order: who registered last is asked first.
    for implementation in reversed(getattr(manager.hook, hook).get_hookimpls()):
        name = implementation.plugin_name
        arguments = (config,) * len(implementation.argnames)  # config is all that there is
        try:
            supplied = implementation.function(*arguments)
        except Exception as error:
            raise PluginLoadError(f"plugin {name!r}: {hook} failed: {error}") from error
        if supplied is not None:
            results.append((name, supplied))
    return results


def _as(kind: type[SuppliedT], supplied: Any, owner: str, hook: str) -> SuppliedT:
    try:
        return kind(supplied)  # type: ignore[call-arg]
    except Exception as error:
        raise PluginLoadError(
            f"plugin {owner!r}: {hook} supplied {supplied!r}, which is no {kind.__name__}: {error}"
        ) from error


def _add(
    found: dict[str, Any], owners: dict[str, str], name: str, thing: Any, owner: str, kind: str
) -> None:
    if name in found:
        raise PluginConflictError(
            f"{kind} {name!r} is supplied by two plugins, {owners[name]!r} and {owner!r}; "
            "rename one or remove its plugin"
        )
    found[name] = thing
    owners[name] = owner


def _chosen(found: Mapping[str, SuppliedT], name: str, option: str) -> SuppliedT:
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"{option} {name!r} is not registered; registered are: {known}")
    return found[name]
