"""``llm-router-mw plugins``: who is plugged in, who supplied what, who was left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from llm_router_mw.cli import main
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import Candidate, EvictionPolicy, Shortfall
from tests.support.entry_points import entry_point, install


class Mine:
    """An eviction policy, and the plugin that supplies it."""

    name = "mine"

    def rank(
        self, candidates: Sequence[Candidate], shortfall: Shortfall, now: float
    ) -> Sequence[Candidate]:
        return candidates  # pragma: no cover

    @hookimpl
    def llm_router_register_eviction_policies(self) -> list[EvictionPolicy]:
        return [self]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ImportError("no module named nowhere")
    install(monkeypatch, entry_point("good", Mine()), entry_point("bad", broken))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plugins", *arguments])


def report() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(run("--json").stdout)
    return loaded


def test_every_plugin_is_listed_with_its_version_hooks_and_objects() -> None:
    rows = {row["name"]: row for row in report()["plugins"]}
    assert rows["good"] == {
        "name": "good",
        "origin": "installed",
        "distribution": "dist-of-good",
        "version": "1.2",
        "hooks": ["llm_router_register_eviction_policies"],
        "objects": ["mine"],
    }
    assert rows["default.engines"]["objects"] == ["process"]
    assert rows["default.engines"]["origin"] == "shipped"


def test_what_was_left_out_is_listed_with_the_reason() -> None:
    [left_out] = report()["left_out"]
    assert left_out["name"] == "bad (dist-of-bad 1.2)"
    assert "no module named nowhere" in left_out["reason"]


def test_people_get_lines_that_fit_any_terminal() -> None:
    output = run().stdout
    assert "good (dist-of-good 1.2)\n  hooks:    eviction_policies\n  supplies: mine\n" in output
    assert "default.engines (shipped)\n" in output
    assert "left out: bad (dist-of-bad 1.2)" in output


def test_a_module_may_be_added_and_one_that_does_not_exist_is_an_error() -> None:
    result = run("--plugin", "no_such_module")
    assert result.exit_code == 1
    assert "'no_such_module' cannot be imported" in result.output


class Commands:
    """A plugin with a command of its own, and one that would replace one of ours."""

    @hookimpl
    def llm_router_register_commands(self, cli: click.Group) -> None:
        @cli.command("greet")
        def greet() -> None:
            click.echo("hello")

        @cli.command("plugins")
        def usurper() -> None:
            click.echo("mine now")  # pragma: no cover


class BrokenCommands:
    @hookimpl
    def llm_router_register_commands(self, cli: click.Group) -> None:
        raise ValueError("my bug")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, sound = entry_point("broken", BrokenCommands()), entry_point("sound", Commands())
    install(monkeypatch, broken, sound)
    monkeypatch.setattr(main, "_asked", False)
    monkeypatch.setattr(main, "commands", dict(main.commands))


@pytest.mark.usefixtures("commands")
def test_a_plugin_adds_commands(caplog: pytest.LogCaptureFixture) -> None:
    assert CliRunner().invoke(main, ["greet"]).output == "hello\n"
    assert "greet" in CliRunner().invoke(main, ["--help"]).output
    [message] = caplog.messages
    assert "broken (dist-of-broken 1.2)" in message
    assert "my bug" in message


@pytest.mark.usefixtures("commands")
def test_a_plugin_replaces_none_of_our_commands() -> None:
    CliRunner().invoke(main, ["greet"])
    assert "eviction_policies" in run().output
