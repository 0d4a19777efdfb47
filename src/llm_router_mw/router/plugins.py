"""Finds plugins and asks them, one by one. A new plugin manager for each router: nothing is global.

Ours come first, then the installed ones, then those that were given; whoever comes later is asked
earlier.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from typing import Any, Literal

import pluggy

from llm_router_mw import hookspecs
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ConfigError, PluginConflictError, PluginLoadError

logger = logging.getLogger("llm_router_mw.plugins")

ALLOW_VARIABLE = "LLM_ROUTER_PLUGINS"
"""Of the environment: the installed plugins that are used, by comma; empty is none at all."""
BLOCK_VARIABLE = "LLM_ROUTER_BLOCK_PLUGINS"
"""Of the environment: installed plugins that are not used, by comma."""
TRACE_VARIABLE = "LLM_ROUTER_TRACE"
"""Of the environment: 1 logs each call of a hook, and what it supplied."""

DEFAULT_PLUGINS = (
    "llm_router_mw.default_plugins.model_sources",
    "llm_router_mw.default_plugins.hub_models",
    "llm_router_mw.default_plugins.engines",
    "llm_router_mw.default_plugins.chat_formats",
    "llm_router_mw.default_plugins.eviction",
    "llm_router_mw.default_plugins.device_probes",
    "llm_router_mw.default_plugins.estimators",
    "llm_router_mw.default_plugins.placement",
    "llm_router_mw.default_plugins.kv_store",
)
"""Our own parts register as anybody's do; first, so that others come before them."""

Origin = Literal["shipped", "installed", "given"]


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that is in use."""

    name: str
    origin: Origin
    distribution: str = ""
    """That it came with; empty unless it was installed."""
    version: str = ""
    hooks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """How messages call it: with the distribution that somebody would have to update."""
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"{self.name}{origin}"


@dataclass(frozen=True, slots=True)
class Implementation:
    """One plugin's function for one hook."""

    plugin: Plugin
    hook: str
    function: Callable[..., Any]
    argument_names: tuple[str, ...]

    def __call__(self, **arguments: Any) -> Any:
        """Call it with those of *arguments* that it takes; a plugin may leave some out.

        Raises:
            ConfigError: the plugin's options are wrong.
            PluginLoadError: it raised something else.
        """
        try:
            return self.function(*(arguments[name] for name in self.argument_names))
        except ConfigError:
            raise  # what the user told the plugin is wrong: nothing that could be done without
        except Exception as error:
            raise PluginLoadError(
                f"plugin {self.plugin.title!r}: {self.hook} failed: {error}"
            ) from error


@dataclass(frozen=True, slots=True)
class Answer:
    """What one plugin supplied for one hook."""

    plugin: Plugin
    hook: str
    supplied: Any


class Plugins:
    """The plugins of one router.

    Args:
        config: says which installed plugins are used, and whether a broken one is forgiven.
        given: objects, classes (of which each router makes its own), modules or dotted names of
            modules.
        use_installed: whether to look for installed ones at all.

    Raises:
        PluginLoadError: one of *given* cannot be imported, has an unknown hook, a wrong signature
            or was written for another version. An installed one is named in the log and left out:
            it must not end its host, unless ``strict_plugins`` says so.
        PluginConflictError: two installed plugins have one name.
    """

    def __init__(
        self, config: RouterConfig, given: Iterable[object] = (), *, use_installed: bool = True
    ) -> None:
        self._config = config
        self._manager = pluggy.PluginManager(hookspecs.NAME)
        self._manager.add_hookspecs(hookspecs)
        self._plugins: dict[str, Plugin] = {}
        self.left_out: dict[str, str] = {}
        """Title of each installed plugin that is not used, and why."""
        for name in DEFAULT_PLUGINS:
            short = f"default.{name.rpartition('.')[2]}"
            self._register(import_module(name), Plugin(short, "shipped"))
        if use_installed:
            self._add_installed()
        self._add_given(given)

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self._plugins.values())

    def answers(self, hooks: Iterable[str]) -> list[Answer]:
        """Call each implementation of *hooks* once and return what they supplied, by hook.

        Raises:
            PluginLoadError: one of them raised. All of a broken installed plugin is left out.
        """
        answers: list[Answer] = []
        for implementation in (each for hook in hooks for each in self.implementations(hook)):
            answers += self._ask(implementation)
        return [answer for answer in answers if answer.plugin.name in self._plugins]

    def implementations(self, hook: str) -> list[Implementation]:
        """Return what implements *hook*; who registered last is asked first, as pluggy does."""
        found = reversed(getattr(self._manager.hook, hook).get_hookimpls())
        return [
            Implementation(self._plugins[each.plugin_name], hook, each.function, each.argnames)
            for each in found
        ]

    def forgive(self, plugin: Plugin, error: PluginLoadError) -> None:
        """Leave *plugin* out because of *error*.

        Raises:
            PluginLoadError: *error*, where *plugin* is no installed one, or must not be broken: one
                that guards requests would leave them unguarded.
        """
        guards = hookspecs.llm_router_register_request_guards.__name__ in plugin.hooks
        if plugin.origin != "installed" or guards or self._config.strict_plugins:
            raise error
        self.left_out[plugin.title] = str(error)
        self._plugins.pop(plugin.name, None)
        if self._manager.has_plugin(plugin.name):
            self._manager.unregister(name=plugin.name)
        logger.error("an installed plugin is left out: %s", error)

    def _ask(self, implementation: Implementation) -> list[Answer]:
        plugin, hook = implementation.plugin, implementation.hook
        try:
            supplied = implementation(config=self._config)
        except PluginLoadError as error:
            self.forgive(plugin, error)
            return []
        if os.environ.get(TRACE_VARIABLE, "0") != "0":
            logger.info("plugin %s: %s supplied %s", plugin.title, hook, _brief(supplied))
        return [] if supplied is None else [Answer(plugin, hook, supplied)]

    def _add_installed(self) -> None:
        wanted = _choice(self._config)
        for entry_point in metadata.entry_points(group=hookspecs.NAME):
            plugin = _installed(entry_point)
            if not wanted(plugin):
                self.left_out[plugin.title] = "it is not among those that are wanted"
                continue
            self._check_name(plugin)
            try:
                self._register(_loaded(plugin, entry_point.load), plugin)
            except PluginLoadError as error:
                self.forgive(plugin, error)

    def _check_name(self, plugin: Plugin) -> None:
        other = self._plugins.get(plugin.name)
        if other is not None:
            raise PluginConflictError(
                f"two plugins have one name, {other.title!r} and {plugin.title!r}; remove one, or "
                "block it by the name of its distribution (block_plugins)"
            )

    def _add_given(self, given: Iterable[object]) -> None:
        names: Counter[str] = Counter()
        # A lone string is iterable too, and would be one plugin per character.
        for thing in (given,) if isinstance(given, str) else given:
            name = thing if isinstance(thing, str) else _name_of(thing)
            names[name] += 1
            plugin = Plugin(name if names[name] == 1 else f"{name} #{names[name]}", "given")
            self._register(_imported(plugin, thing) if isinstance(thing, str) else thing, plugin)

    def _register(self, thing: object, plugin: Plugin) -> None:
        try:
            _check_version(thing)
            if isinstance(thing, type):
                thing = thing()  # each router has its own, for things that work together
            self._manager.register(thing, plugin.name)
            self._manager.check_pending()  # a misspelt hook is silent until this asks
        except Exception as error:
            # A failed registration leaves the name behind, half done.
            if self._manager.has_plugin(plugin.name):
                self._manager.unregister(name=plugin.name)
            raise PluginLoadError(
                f"plugin {plugin.title!r} cannot be registered: {error}"
            ) from error
        hooks = sorted(call.name for call in self._manager.get_hookcallers(thing) or [])
        self._plugins[plugin.name] = replace(plugin, hooks=tuple(hooks))


def _name_of(thing: object) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))


def _installed(entry_point: metadata.EntryPoint) -> Plugin:
    distribution = entry_point.dist
    if distribution is None:
        return Plugin(entry_point.name, "installed")
    return Plugin(entry_point.name, "installed", distribution.name, distribution.version)


def _imported(plugin: Plugin, dotted: str) -> object:
    return _loaded(plugin, lambda: import_module(dotted))


def _loaded(plugin: Plugin, load: Callable[[], object]) -> object:
    try:
        return load()
    except Exception as error:
        raise PluginLoadError(f"plugin {plugin.title!r} cannot be imported: {error}") from error


def _check_version(thing: object) -> None:
    """Refuse a plugin that says that it was written for hooks which are not ours.

    Raises:
        ValueError: with what to do about it.
    """
    version = getattr(thing, hookspecs.API_ATTRIBUTE, None)
    if version is None or hookspecs.OLDEST_API_VERSION <= version <= hookspecs.API_VERSION:
        return
    newer = version > hookspecs.API_VERSION
    raise ValueError(
        f"it was written for version {version} of the plugin API, and this is version "
        f"{hookspecs.API_VERSION}; update {'llm-router-mw' if newer else 'the plugin'}"
    )


def _choice(config: RouterConfig) -> Callable[[Plugin], bool]:
    """Return what says whether an installed plugin is wanted; the environment goes first."""
    allowed = _from_environment(ALLOW_VARIABLE)
    if allowed is None:
        allowed = config.allow_plugins
    blocked = {*config.block_plugins, *(_from_environment(BLOCK_VARIABLE) or ())}

    def is_wanted(plugin: Plugin) -> bool:
        names = {plugin.name, plugin.distribution}
        return not names & blocked and (allowed is None or bool(names & set(allowed)))

    return is_wanted


def _from_environment(variable: str) -> tuple[str, ...] | None:
    text = os.environ.get(variable)
    return None if text is None else tuple(name for name in text.replace(",", " ").split())


def _brief(supplied: Any) -> str:
    """Return what *supplied* is, by names only."""
    things = supplied if isinstance(supplied, Iterable) else [supplied]
    return ", ".join(str(getattr(each, "name", each)) for each in things) or "nothing"
