"""What the plugins of a router supply, checked and by name."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from msgspec import structs

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ConfigError, PluginConflictError, PluginLoadError
from llm_router_mw.faults import Faults
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
    SleepHandler,
    SnapshotStore,
)
from llm_router_mw.router.plugins import Answer, Implementation, Plugin, Plugins

logger = logging.getLogger("llm_router_mw.plugins")

SuppliedT = TypeVar("SuppliedT")

_OBJECTS: dict[str, tuple[str, type[Any]]] = {
    "sources": ("llm_router_register_model_sources", ModelSource),
    "resolvers": ("llm_router_register_model_resolvers", ModelResolver),
    "engines": ("llm_router_register_engines", EngineFactory),
    "policies": ("llm_router_register_eviction_policies", EvictionPolicy),
    "observers": ("llm_router_register_observers", Observer),
    "probes": ("llm_router_register_device_probes", DeviceProbe),
    "estimators": ("llm_router_register_estimators", Estimator),
    "placements": ("llm_router_register_placement_policies", PlacementPolicy),
    "sleep_handlers": ("llm_router_register_sleep_handlers", SleepHandler),
    "guards": ("llm_router_register_request_guards", RequestGuard),
    "route_groups": ("llm_router_register_routes", RouteGroup),
}
"""Field of the registry → the hook that fills it, and what its objects have to be."""
_PROTOCOLS = dict(_OBJECTS.values())
_CHAT_FORMATS = "llm_router_register_chat_formats"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """What the plugins of one router supply, by name; whoever is asked first comes first."""

    sources: Mapping[str, ModelSource]
    resolvers: Mapping[str, ModelResolver]
    engines: Mapping[str, EngineFactory]
    policies: Mapping[str, EvictionPolicy]
    observers: Mapping[str, Observer]
    probes: Mapping[str, DeviceProbe]
    estimators: Mapping[str, Estimator]
    placements: Mapping[str, PlacementPolicy]
    sleep_handlers: Mapping[str, SleepHandler]
    guards: Mapping[str, RequestGuard]
    route_groups: Mapping[str, RouteGroup]
    chat_formats: Mapping[str, str]
    lifespans: tuple[Implementation, ...] = ()
    """What wants to live beside the router."""
    plugins: tuple[Plugin, ...] = ()
    """Who supplied it."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Installed plugins that are not used, and why."""
    faults: Faults = field(default_factory=Faults)
    """What their objects do wrong while they work."""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of the objects and chat formats that each plugin supplied, by the plugin's name."""

    @property
    def stores(self) -> list[SnapshotStore]:
        """The sleep handlers that keep conversations."""
        return [each for each in self.sleep_handlers.values() if isinstance(each, SnapshotStore)]

    def engine(self, name: str) -> EngineFactory:
        """Return the engine called *name*; raises ConfigError if there is none."""
        return _chosen(self.engines, name, "engine")

    def policy(self, name: str) -> EvictionPolicy:
        """Return the eviction policy called *name*; raises ConfigError if there is none."""
        return _chosen(self.policies, name, "eviction_policy")

    def placement(self, name: str) -> PlacementPolicy:
        """Return the placement policy called *name*; raises ConfigError if there is none."""
        return _chosen(self.placements, name, "placement_policy")


class _Named(NamedTuple):
    """One object, or one chat format, that a plugin has supplied."""

    owner: Plugin
    hook: str
    name: str
    thing: Any


def load_registry(
    config: RouterConfig, given: Iterable[object] = (), *, use_installed: bool = True
) -> Registry:
    """Find all plugins, *given* among them, call each hook once and return what was supplied.

    Raises:
        PluginLoadError: a hook raised, or supplied something of the wrong shape. An installed
            plugin that does so is left out instead, unless ``strict_plugins`` says otherwise.
        PluginConflictError: two objects of one kind have one name.
        ConfigError: an option of a plugin is wrong, or with ``strict_plugins`` for none of them.
    """
    told = _Told(config.plugin_options)
    asking = structs.replace(config, plugin_options=told)
    plugins = Plugins(asking, given, use_installed=use_installed)
    supplied = _supplied(plugins, [*(hook for hook, _ in _OBJECTS.values()), _CHAT_FORMATS])
    _tell_of_unread(told.unread, strict=config.strict_plugins)
    found: dict[str, Any] = {
        field: _merged(supplied, hook, kind.__name__) for field, (hook, kind) in _OBJECTS.items()
    }
    names: dict[str, tuple[str, ...]] = {}
    for each in supplied:
        names[each.owner.name] = (*names.get(each.owner.name, ()), each.name)
    return Registry(
        **found,
        chat_formats=_merged(supplied, _CHAT_FORMATS, "chat format"),
        lifespans=tuple(plugins.implementations("llm_router_lifespan")),
        plugins=tuple(plugins),
        left_out=plugins.left_out,
        names=names,
    )


def load_route_groups(
    config: RouterConfig, given: Iterable[object] = (), *, use_installed: bool = True
) -> Mapping[str, RouteGroup]:
    """Ask plugins only for what they add to the routes of a door: the rest works in another place.

    Raises:
        PluginLoadError: as ``load_registry``.
        PluginConflictError: two groups have one name.
    """
    hook, protocol = _OBJECTS["route_groups"]
    plugins = Plugins(config, given, use_installed=use_installed)
    return _merged(_supplied(plugins, [hook]), hook, protocol.__name__)


def _supplied(plugins: Plugins, hooks: Iterable[str]) -> list[_Named]:
    """Return what *plugins* supply for *hooks*.

    Raises:
        PluginLoadError: one raised, or supplied something of the wrong shape.
    """
    supplied: list[_Named] = []
    for answer in plugins.answers(hooks):
        try:
            supplied += _checked(answer)
        except PluginLoadError as error:
            plugins.forgive(answer.plugin, error)
    # What has been left out for one of its answers is left out whole.
    used = frozenset(plugins)
    return [each for each in supplied if each.owner in used]


class _Told(dict[str, dict[str, Any]]):
    """The options of plugins, which know whose have been read."""

    def __init__(self, options: Mapping[str, dict[str, Any]]) -> None:
        super().__init__(options)
        self.unread = set(options)

    def __getitem__(self, plugin: str) -> dict[str, Any]:
        self.unread.discard(plugin)
        return super().__getitem__(plugin)


def _tell_of_unread(unread: Iterable[str], *, strict: bool) -> None:
    """Say whose options nobody has read: a budget for a misspelt plugin limits nobody.

    Raises:
        ConfigError: there are such, and that must not be.
    """
    names = ", ".join(sorted(map(repr, unread)))
    if not names:
        return
    problem = (
        f"no plugin that is in use reads the plugin_options of {names}; correct the name, or see "
        "with llm-router-mw plugins what is in use"
    )
    if strict:
        raise ConfigError(problem)
    logger.warning("%s", problem)


def _checked(answer: Answer) -> list[_Named]:
    """Return what *answer* holds, one by one.

    Raises:
        PluginLoadError: it is not what its hook asks for.
    """
    owner, hook, supplied = answer.plugin, answer.hook, answer.supplied
    if hook == _CHAT_FORMATS:
        formats = _as(dict, supplied, answer)
        return [_Named(owner, hook, name, dotted) for name, dotted in formats.items()]
    things = _as(list, supplied, answer)
    protocol = _PROTOCOLS[hook]
    for thing in things:
        # A class has all members too, and would fail when it is used.
        if isinstance(thing, type) or not isinstance(thing, protocol):
            raise PluginLoadError(
                f"plugin {owner.title!r}: {hook} supplied {thing!r}, which is no "
                f"{protocol.__name__}"
            )
    return [_Named(owner, hook, thing.name, thing) for thing in things]


def _as(kind: type[SuppliedT], supplied: Any, answer: Answer) -> SuppliedT:
    try:
        return kind(supplied)  # type: ignore[call-arg]
    except Exception as error:
        raise PluginLoadError(
            f"plugin {answer.plugin.title!r}: {answer.hook} supplied {supplied!r}, which is no "
            f"{kind.__name__}: {error}"
        ) from error


def _merged(supplied: Iterable[_Named], hook: str, kind: str) -> dict[str, Any]:
    found: dict[str, _Named] = {}
    for each in supplied:
        if each.hook != hook:
            continue
        if each.name in found:
            raise PluginConflictError(
                f"{kind} {each.name!r} is supplied by two plugins, "
                f"{found[each.name].owner.title!r} and {each.owner.title!r}; rename one or remove "
                "its plugin"
            )
        found[each.name] = each
    return {name: each.thing for name, each in found.items()}


def _chosen(found: Mapping[str, SuppliedT], name: str, option: str) -> SuppliedT:
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"{option} {name!r} is not registered; registered are: {known}")
    return found[name]
