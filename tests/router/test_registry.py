"""What plugins may supply, in which order, and what happens when it is of the wrong shape."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct

from llm_router_mw.config import RouterConfig, plugin_options
from llm_router_mw.default_plugins import engines, eviction
from llm_router_mw.errors import ConfigError, PluginConflictError, PluginLoadError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import Candidate, Shortfall
from llm_router_mw.router.process_engine import ProcessEngine
from llm_router_mw.router.registry import Registry, load_registry, load_route_groups
from llm_router_mw.types import Device, InstanceKey, LoadOptions, Model, Placement
from tests.support.entry_points import entry_point, install

CONFIG = RouterConfig()


class Source:
    """A model source without models."""

    def __init__(self, name: str) -> None:
        self.name = name

    def models(self) -> list[Model]:
        return []  # pragma: no cover


class Sources:
    """A plugin that supplies what it was given as model sources."""

    def __init__(self, *supplied: Any, whole: Any = None) -> None:
        self._supplied = list(supplied) if whole is None else whole

    @hookimpl
    def llm_router_register_model_sources(self, config: RouterConfig) -> Any:
        return self._supplied


class Formats:
    """A plugin that supplies chat formats."""

    def __init__(self, supplied: Any) -> None:
        self._supplied = supplied

    @hookimpl
    def llm_router_register_chat_formats(self, config: RouterConfig) -> Any:
        return self._supplied


class Raising:
    @hookimpl
    def llm_router_register_model_sources(self, config: RouterConfig) -> list[Source]:
        raise KeyError("my bug")


class WithoutArguments:
    @hookimpl
    def llm_router_register_model_sources(self) -> list[Source]:
        return [Source("bare")]


class Nothing:
    @hookimpl
    def llm_router_register_model_sources(self, config: RouterConfig) -> None:
        return None


def supplied(*plugins: object) -> Registry:
    return load_registry(CONFIG, plugins)


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def test_our_own_parts_are_registered_as_anybodys() -> None:
    registry = supplied()
    assert isinstance(registry.engine("process"), ProcessEngine)
    assert registry.policy("lru").name == "lru"
    assert registry.chat_formats["template"].endswith(":TemplateChatFormat")
    assert registry.observers == {}


def test_explicit_plugins_come_before_installed_ones_and_these_before_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, entry_point("installed", Sources(Source("installed"))))
    ours = list(supplied().sources)[1:]
    assert list(supplied(Sources(Source("first")), Sources(Source("second"))).sources) == [
        "second",
        "first",
        "installed",
        *ours,
    ]


def test_a_hook_may_do_without_the_config_and_without_a_result() -> None:
    assert "bare" in supplied(WithoutArguments(), Nothing()).sources


def test_two_objects_of_one_name_are_a_conflict_that_names_both() -> None:
    with pytest.raises(PluginConflictError, match=r"'mine' is supplied by two plugins, '.+' and"):
        supplied(Sources(Source("mine")), Sources(Source("mine")))
    with pytest.raises(PluginConflictError, match=r"chat format 'template' .*'Formats'"):
        supplied(Formats({"template": "my.module:Format"}))


def test_a_chat_format_is_a_dotted_name() -> None:
    assert supplied(Formats({"mine": "my.module:Format"})).chat_formats["mine"] == (
        "my.module:Format"
    )


@pytest.mark.parametrize("thing", [object(), Source, "text"])
def test_an_object_of_the_wrong_shape_is_refused(thing: object) -> None:
    with pytest.raises(PluginLoadError, match=r"'Sources': .* which is no ModelSource"):
        supplied(Sources(thing))


@pytest.mark.parametrize("plugin", [Sources(whole=Source("alone")), Formats(5), Formats([1, 2])])
def test_a_hook_that_supplies_no_collection_is_refused(plugin: object) -> None:
    with pytest.raises(PluginLoadError, match=r"which is no (list|dict)"):
        supplied(plugin)


def test_an_installed_plugin_that_supplies_nonsense_is_left_out_whole(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class HalfRight(Sources):
        @hookimpl
        def llm_router_register_engines(self, config: RouterConfig) -> Any:
            return [object()]

    install(monkeypatch, entry_point("half", HalfRight(Source("fine"))))
    registry = supplied()
    assert "fine" not in registry.sources
    assert list(registry.left_out) == ["half (dist-of-half 1.2)"]
    [line] = [record.getMessage() for record in caplog.records]
    assert "which is no EngineFactory" in line


def test_it_is_known_who_supplied_what() -> None:
    registry = supplied(Sources(Source("first"), Source("second")))
    assert registry.names["Sources"] == ("first", "second")
    assert registry.names["default.engines"] == ("process",)
    assert [plugin.name for plugin in registry.plugins if plugin.origin == "given"] == ["Sources"]


def test_an_unknown_engine_or_policy_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"engine 'rocket' is not registered.* are: process"):
        supplied().engine("rocket")
    with pytest.raises(ConfigError, match=r"eviction_policy 'random' .* are: .*lru"):
        supplied().policy("random")
    with pytest.raises(ConfigError, match="are: none"):
        Registry(
            resolvers={},
            route_groups={},
            guards={},
            sources={},
            engines={},
            policies={},
            observers={},
            probes={},
            estimators={},
            placements={},
            sleep_handlers={},
            chat_formats={},
        ).engine("x")


class Memory:
    """A plugin with all that there is to decide about memory; each part is of one name."""

    name = "mine"

    def inventory(self) -> list[Device]:
        return []  # pragma: no cover

    def used_bytes(self, pids: Sequence[int]) -> dict[str, int]:
        return {}  # pragma: no cover

    def estimate(self, model: Model, placement: Placement, devices: Sequence[Device]) -> None:
        return None  # pragma: no cover

    def place(self, model: Model, devices: Sequence[Device]) -> list[Placement]:
        return []  # pragma: no cover

    @hookimpl
    def llm_router_register_device_probes(self) -> list[Memory]:
        return [self]

    @hookimpl
    def llm_router_register_estimators(self) -> list[Memory]:
        return [self]

    @hookimpl
    def llm_router_register_placement_policies(self) -> list[Memory]:
        return [self]


@pytest.mark.parametrize("kind", ["probes", "estimators", "placements"])
def test_what_decides_about_memory_is_supplied_by_plugins_and_they_come_before_ours(
    kind: str,
) -> None:
    plugin = Memory()
    found = getattr(supplied(plugin), kind)
    assert list(found) == ["mine", *getattr(supplied(), kind)]
    assert found["mine"] is plugin


@pytest.mark.parametrize(
    ("hook", "protocol"),
    [
        ("device_probes", "DeviceProbe"),
        ("estimators", "Estimator"),
        ("placement_policies", "PlacementPolicy"),
    ],
)
def test_what_decides_about_memory_has_to_have_the_right_shape(hook: str, protocol: str) -> None:
    @hookimpl
    def implementation() -> list[object]:
        return [Source("wrong")]

    plugin = SimpleNamespace(**{f"llm_router_register_{hook}": implementation})
    with pytest.raises(PluginLoadError, match=f"which is no {protocol}"):
        supplied(plugin)


def test_ours_ask_the_header_first_and_the_size_of_the_file_last() -> None:
    names = list(supplied().estimators)
    assert names.index("metadata") < names.index("file-size") == len(names) - 1


def test_the_shipped_engine_works_in_processes() -> None:
    (engine,) = engines.llm_router_register_engines(CONFIG)
    assert engine.name == "process"


def test_the_shipped_policy_names_the_least_recently_used_first() -> None:
    policy = next(
        p for p in eviction.llm_router_register_eviction_policies(CONFIG) if p.name == "lru"
    )

    def candidate(name: str, last_used_seconds: float) -> Candidate:
        return Candidate(
            instance=InstanceKey(name, LoadOptions()),
            step="stop",
            models=(name,),
            freed={"slots": 1},
            last_used_seconds=last_used_seconds,
            loaded_at_seconds=0.0,
            load_seconds=1.0,
            uses=1,
        )

    young, old = candidate("young", 9.0), candidate("old", 1.0)
    shortfall = Shortfall(device="slots", bytes=1, lacking={"slots": 1})
    assert list(policy.rank([young, old], shortfall, 10.0)) == [old, young]


class Budget(Struct):
    """Its options."""

    tokens: int = 0


class Budgeted:
    """A plugin with options of its own."""

    @hookimpl
    def llm_router_register_model_sources(self, config: RouterConfig) -> list[Source]:
        plugin_options(config, "quota", Budget)
        return []


def test_options_that_nobody_reads_are_told(caplog: pytest.LogCaptureFixture) -> None:
    load_registry(RouterConfig(plugin_options={"quota": {"tokens": 5}}), [Budgeted()])
    assert not caplog.records
    load_registry(RouterConfig(plugin_options={"qouta": {"tokens": 5}}), [Budgeted()])
    assert "no plugin that is in use reads the plugin_options of 'qouta'" in caplog.text


def test_they_are_an_error_where_plugins_must_be_sound() -> None:
    config = RouterConfig(plugin_options={"qouta": {}}, strict_plugins=True)
    with pytest.raises(ConfigError, match="'qouta'"):
        load_registry(config, [Budgeted()], use_installed=False)


class Routes:
    """A plugin that adds a group of routes, and whose engine is for another process."""

    def __init__(self, group: Any) -> None:
        self._group = group

    @hookimpl
    def llm_router_register_routes(self, config: RouterConfig) -> list[Any]:
        return [self._group]

    @hookimpl
    def llm_router_register_engines(self, config: RouterConfig) -> list[Any]:
        raise AssertionError("nobody runs models here")  # pragma: no cover


def group(name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name, access="inference", routes=())


def test_a_door_whose_router_is_elsewhere_asks_for_routes_and_nothing_else() -> None:
    mine = group("mine")
    assert load_route_groups(CONFIG, [Routes(mine)], use_installed=False) == {"mine": mine}


def test_routes_that_are_asked_for_alone_are_checked_as_all_else() -> None:
    with pytest.raises(PluginLoadError, match="no RouteGroup"):
        load_route_groups(CONFIG, [Routes("nonsense")], use_installed=False)
    with pytest.raises(PluginConflictError, match="RouteGroup 'mine' is supplied by two"):
        load_route_groups(CONFIG, [Routes(group("mine")), Routes(group("mine"))])
