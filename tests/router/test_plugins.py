"""Which plugins are found and used, and what happens to one that is broken."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from llm_router_mw import hookspecs
from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import ConfigError, PluginConflictError, PluginLoadError
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.router.plugins import Answer, Plugins
from tests.support.entry_points import entry_point, install

CONFIG = RouterConfig()
STRICT = RouterConfig(strict_plugins=True)
HOOK = "llm_router_register_chat_formats"


class Formats:
    """A plugin that supplies a chat format of one name."""

    def __init__(self, name: str) -> None:
        self._name = name

    @hookimpl
    def llm_router_register_chat_formats(self, config: RouterConfig) -> dict[str, str]:
        return {self._name: "module:Class"}


class Misspelt:
    @hookimpl
    def llm_router_register_chat_fromats(self, config: RouterConfig) -> dict[str, str]:
        return {}  # pragma: no cover


class WrongArguments:
    @hookimpl
    def llm_router_register_chat_formats(self, config: RouterConfig, more: str) -> dict[str, str]:
        return {}  # pragma: no cover


class Raising:
    @hookimpl
    def llm_router_register_chat_formats(self, config: RouterConfig) -> dict[str, str]:
        raise KeyError("my bug")


class OfAnotherVersion(Formats):
    def __init__(self, version: int) -> None:
        super().__init__("versioned")
        setattr(self, hookspecs.API_ATTRIBUTE, version)


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def answers(*given: object, config: RouterConfig = CONFIG) -> list[Answer]:
    return Plugins(config, given).answers([HOOK])


def names(found: list[Answer]) -> list[str]:
    return [name for answer in found for name in answer.supplied]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def two_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, entry_point("one", Formats("1")), entry_point("two", Formats("2")))


def test_who_comes_last_is_asked_first(two_installed: None) -> None:
    found = answers(Formats("given"), Formats("given later"))
    assert names(found) == ["given later", "given", "2", "1", "template"]
    origins = [answer.plugin.origin for answer in found]
    assert origins == ["given", "given", "installed", "installed", "shipped"]


def test_a_plugin_may_be_given_by_the_name_of_its_module() -> None:
    plugin = "llm_router_mw.default_plugins.eviction"
    with pytest.raises(PluginLoadError, match="Plugin already registered"):
        Plugins(CONFIG, [plugin])
    with pytest.raises(PluginLoadError, match="'no_such_module' cannot be imported: No module"):
        Plugins(CONFIG, ["no_such_module"])
    with pytest.raises(PluginLoadError, match="'no_such_module' cannot be imported: No module"):
        Plugins(CONFIG, "no_such_module")


class OfARouter:
    """A plugin with something that belongs to one router."""

    count = 0

    def __init__(self) -> None:
        OfARouter.count += 1
        self._name = f"number {OfARouter.count}"

    @hookimpl
    def llm_router_register_chat_formats(self, config: RouterConfig) -> dict[str, str]:
        return {self._name: "module:Class"}


def test_of_a_class_each_router_makes_its_own_plugin() -> None:
    first, second = names(answers(OfARouter)), names(answers(OfARouter))
    assert first[0] != second[0]


class NotMade:
    def __init__(self) -> None:
        raise ValueError("no licence")


def test_a_class_of_which_none_can_be_made_is_a_broken_plugin() -> None:
    with pytest.raises(PluginLoadError, match="'NotMade' cannot be registered: no licence"):
        answers(NotMade)


@pytest.mark.parametrize("plugin", [Misspelt(), WrongArguments()])
def test_a_hook_that_nobody_would_call_is_an_error(plugin: object) -> None:
    name = type(plugin).__name__
    with pytest.raises(PluginLoadError, match=f"'{name}' cannot be registered: .*_chat_"):
        Plugins(CONFIG, [plugin])


def test_the_same_plugin_twice_is_an_error_and_two_of_one_class_are_none() -> None:
    plugin = Formats("x")
    with pytest.raises(PluginLoadError, match="Formats #2"):
        Plugins(CONFIG, [plugin, plugin])
    assert {"x", "y"} <= set(names(answers(plugin, Formats("y"))))


def test_a_raising_hook_is_named_with_its_plugin() -> None:
    with pytest.raises(PluginLoadError, match=r"'Raising': .*chat_formats failed: 'my bug'"):
        answers(Raising())


def test_wrong_options_of_a_plugin_are_an_error_also_of_an_installed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unhappy(Formats):
        @hookimpl
        def llm_router_register_chat_formats(self, config: RouterConfig) -> dict[str, str]:
            raise ConfigError("no such budget")

    install(monkeypatch, entry_point("unhappy", Unhappy("x")))
    with pytest.raises(ConfigError, match="no such budget"):
        answers()


def test_a_broken_installed_plugin_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(
        monkeypatch,
        entry_point("unimportable", ImportError("no module named nowhere")),
        entry_point("misspelt", Misspelt(), version="0.3"),
        entry_point("nameless", WrongArguments(), version=None),
        entry_point("raising", Raising()),
        entry_point("sound", Formats("sound")),
    )
    plugins = Plugins(CONFIG)
    assert names(plugins.answers([HOOK])) == ["sound", "template"]
    assert messages(caplog)[0] == (
        "an installed plugin is left out: plugin 'unimportable (dist-of-unimportable 1.2)' cannot "
        "be imported: no module named nowhere"
    )
    assert list(plugins.left_out) == [
        "unimportable (dist-of-unimportable 1.2)",
        "misspelt (dist-of-misspelt 0.3)",
        "nameless",
        "raising (dist-of-raising 1.2)",
    ]
    assert len(messages(caplog)) == len(plugins.left_out)
    assert [plugin.name for plugin in plugins if plugin.origin == "installed"] == ["sound"]


class BrokenGuard:
    @hookimpl
    def llm_router_register_request_guards(self, config: RouterConfig) -> list[Any]:
        return []  # pragma: no cover

    @hookimpl
    def llm_router_register_chat_formats(self, config: RouterConfig) -> dict[str, str]:
        raise KeyError("my bug")


def test_one_that_guards_requests_is_not_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, entry_point("guard", BrokenGuard()))
    with pytest.raises(PluginLoadError, match="my bug"):
        answers()


@pytest.mark.parametrize("plugin", [ImportError("gone"), Misspelt(), Raising()])
def test_a_strict_router_does_not_start_with_a_broken_plugin(
    plugin: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, entry_point("broken", plugin))
    with pytest.raises(PluginLoadError, match=r"broken \(dist-of-broken 1\.2\)"):
        answers(config=STRICT)


def test_two_distributions_with_plugins_of_one_name_are_both_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, entry_point("twin", Formats("a")), entry_point("twin", Formats("b"), "2"))
    with pytest.raises(PluginConflictError, match=r"\(dist-of-twin 1\.2\).*\(dist-of-twin 2\)"):
        Plugins(CONFIG)


@pytest.mark.parametrize(
    ("version", "advice"), [(99, "update llm-router-mw"), (0, "update the plugin")]
)
def test_a_plugin_for_other_hooks_says_what_to_update(version: int, advice: str) -> None:
    with pytest.raises(PluginLoadError, match=f"version {version} of the plugin API.*{advice}"):
        Plugins(CONFIG, [OfAnotherVersion(version)])


def test_a_plugin_may_say_that_it_is_for_these_hooks() -> None:
    assert "versioned" in names(answers(OfAnotherVersion(hookspecs.API_VERSION)))


@pytest.mark.usefixtures("two_installed")
@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({}, ["2", "1"]),
        ({"allow_plugins": ("one",)}, ["1"]),
        ({"allow_plugins": ("dist-of-two",)}, ["2"]),
        ({"allow_plugins": ()}, []),
        ({"block_plugins": ("one",)}, ["2"]),
        ({"allow_plugins": ("one", "two"), "block_plugins": ("dist-of-one",)}, ["2"]),
    ],
)
def test_installed_plugins_can_be_chosen(options: dict[str, Any], used: list[str]) -> None:
    assert names(answers(config=RouterConfig(**options))) == [*used, "template"]


@pytest.mark.usefixtures("two_installed")
@pytest.mark.parametrize(
    ("variable", "value", "used"),
    [
        ("LLM_ROUTER_PLUGINS", "two", ["2"]),
        ("LLM_ROUTER_PLUGINS", "one, two", ["2", "1"]),
        ("LLM_ROUTER_PLUGINS", "", []),
        ("LLM_ROUTER_BLOCK_PLUGINS", "dist-of-two", ["1"]),
    ],
)
def test_the_environment_goes_before_the_config(
    variable: str, value: str, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    config = RouterConfig(allow_plugins=None if "BLOCK" in variable else ())
    plugins = Plugins(config)
    assert names(plugins.answers([HOOK])) == [*used, "template"]
    assert len(plugins.left_out) == 2 - len(used)


@pytest.mark.usefixtures("two_installed")
def test_installed_plugins_can_be_left_alone() -> None:
    assert names(Plugins(CONFIG, use_installed=False).answers([HOOK])) == ["template"]


@pytest.mark.parametrize(("value", "lines"), [("1", 1), ("0", 0)])
def test_calls_of_hooks_are_logged_where_that_is_asked_for(
    value: str, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("LLM_ROUTER_TRACE", value)
    answers()
    expected = ["plugin default.chat_formats: llm_router_register_chat_formats supplied template"]
    assert messages(caplog) == expected * lines
