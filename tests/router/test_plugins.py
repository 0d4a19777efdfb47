"""What plugins may supply, in which order, and what happens when one is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from llm_router_mw.config import RouterConfig
from llm_router_mw.default_plugins import engines, eviction
from llm_router_mw.errors import ConfigError, PluginConflictError, PluginLoadError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import Candidate, Shortfall
from llm_router_mw.router.plugins import Registry, collect, create_plugin_manager
from llm_router_mw.router.process_engine import ProcessEngine
from llm_router_mw.types import Device, InstanceKey, LoadOptions, Model, Placement

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


class Misspelt:
    @hookimpl
    def llm_router_register_model_sauces(self, config: RouterConfig) -> list[Source]:
        return []  # pragma: no cover


class WrongArguments:
    @hookimpl
    def llm_router_register_model_sources(self, config: RouterConfig, more: str) -> list[Source]:
        return []  # pragma: no cover


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
    return collect(create_plugin_manager(plugins), CONFIG)


def install(monkeypatch: pytest.MonkeyPatch, *entry_points: metadata.EntryPoint) -> None:
    """Pretend that distributions with *entry_points* are installed."""

    def found(*, group: str) -> Sequence[metadata.EntryPoint]:
        assert group == "llm_router_mw"
        return entry_points

    monkeypatch.setattr("llm_router_mw.router.plugins.metadata.entry_points", found)


def entry_point(name: str, loaded: object, version: str | None = "1.2") -> metadata.EntryPoint:
    def load() -> object:
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    dist = None if version is None else SimpleNamespace(name=f"dist-of-{name}", version=version)
    return SimpleNamespace(name=name, dist=dist, load=load)  # type: ignore[return-value]


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


@pytest.mark.parametrize("plugin", [Misspelt(), WrongArguments()])
def test_a_hook_that_nobody_would_call_is_an_error(plugin: object) -> None:
    name = type(plugin).__name__
    with pytest.raises(PluginLoadError, match=f"'{name}' cannot be registered: .*_model_"):
        create_plugin_manager([plugin])


def test_the_same_plugin_twice_is_an_error_and_two_of_one_class_are_none() -> None:
    plugin = Sources(Source("x"))
    with pytest.raises(PluginLoadError, match="Sources #2"):
        create_plugin_manager([plugin, plugin])
    assert {"x", "y"} <= set(supplied(plugin, Sources(Source("y"))).sources)


def test_a_raising_hook_is_named_with_its_plugin() -> None:
    with pytest.raises(PluginLoadError, match=r"'Raising': .*model_sources failed: 'my bug'"):
        supplied(Raising())


@pytest.mark.parametrize("thing", [object(), Source, "text"])
def test_an_object_of_the_wrong_shape_is_refused(thing: object) -> None:
    with pytest.raises(PluginLoadError, match=r"'Sources': .* which is no ModelSource"):
        supplied(Sources(thing))


@pytest.mark.parametrize("plugin", [Sources(whole=Source("alone")), Formats(5), Formats([1, 2])])
def test_a_hook_that_supplies_no_collection_is_refused(plugin: object) -> None:
    with pytest.raises(PluginLoadError, match=r"which is no (list|dict)"):
        supplied(plugin)


def test_a_broken_installed_plugin_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(
        monkeypatch,
        entry_point("unimportable", ImportError("no module named nowhere")),
        entry_point("misspelt", Misspelt(), version="0.3"),
        entry_point("nameless", WrongArguments(), version=None),
        entry_point("sound", Sources(Source("sound"))),
    )
    assert "sound" in supplied().sources
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == (
        "plugin unimportable (dist-of-unimportable 1.2) cannot be used and is left out: "
        "no module named nowhere"
    )
    assert "misspelt (dist-of-misspelt 0.3)" in lines[1]
    assert lines[2].startswith("plugin nameless cannot be used")
    assert len(lines) == 3


def test_an_unknown_engine_or_policy_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"engine 'rocket' is not registered.* are: process"):
        supplied().engine("rocket")
    with pytest.raises(ConfigError, match=r"eviction_policy 'random' .* are: .*lru"):
        supplied().policy("random")
    with pytest.raises(ConfigError, match="are: none"):
        Registry(
            sources={},
            engines={},
            policies={},
            observers={},
            probes={},
            estimators={},
            placements={},
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
