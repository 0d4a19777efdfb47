"""The router of a door: the one that was given, or a new one, of this process or shared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from llm_router_mw import (
    LLMRouterApp,
    LLMRouterMiddleware,
    LLMRouterWSGIMiddleware,
    RemoteRouter,
    Router,
)
from llm_router_mw.asgi import added_routes, router_for
from llm_router_mw.errors import ConfigError, PluginLoadError
from llm_router_mw.protocols import StartableRouter
from tests.support.fake_router import FakeRouter

PLUGIN = '''
"""Adds a group of routes."""
from llm_router_mw import hookimpl

class Extra:
    name = "extra"
    access = "inference"
    routes = ()

@hookimpl
def llm_router_register_routes(config):
    return [Extra()]
'''


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that adds a group of routes."""
    (tmp_path / "extra_routes_of_a_test.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    return "extra_routes_of_a_test"


def made(**options: Any) -> StartableRouter:
    return router_for(None, 7.5, options)


def test_a_router_that_is_given_is_used() -> None:
    router = FakeRouter()
    assert router_for(router, 7.5, {}) is router
    assert added_routes(router) == {}


@pytest.mark.parametrize("option", [{"mode": "shared"}, {"plugins": ["a"]}, {"n_ctx": 64}])
def test_it_takes_its_options_itself(option: dict[str, Any]) -> None:
    [name] = option
    with pytest.raises(ConfigError, match=f"^{name}: options of a router go to the one that is"):
        router_for(FakeRouter(), 7.5, option)


def test_without_one_it_is_this_process_own(plugin: str) -> None:
    router = made(plugins=[plugin], n_ctx=64)
    assert isinstance(router, Router)
    assert router.config.load.n_ctx == 64
    assert router.config.client_stall_seconds == 7.5
    assert list(added_routes(router)) == ["extra"]


def test_in_shared_mode_it_speaks_for_a_host(plugin: str) -> None:
    router = made(mode="shared", plugins=[plugin], n_ctx=64)
    assert isinstance(router, RemoteRouter)
    assert router.config.load.n_ctx == 64
    assert router.config.client_stall_seconds == 7.5
    assert list(added_routes(router)) == ["extra"]


def test_the_options_of_a_door_are_left_as_they_are(plugin: str) -> None:
    options = {"plugins": [plugin]}
    router_for(None, 7.5, options)
    assert options == {"plugins": [plugin]}


def test_a_plugin_that_is_shared_has_a_name() -> None:
    class Plugin:
        pass

    assert isinstance(made(plugins=[Plugin()]), Router)
    with pytest.raises(ConfigError, match=r"the plugin .*Plugin object.* dotted name"):
        made(mode="shared", plugins=[Plugin()])


def test_a_plugin_whose_routes_are_wanted_is_imported_by_the_door() -> None:
    router = made(mode="shared", plugins=["no.such.module"])
    with pytest.raises(PluginLoadError, match=r"'no\.such\.module' cannot be imported"):
        added_routes(router)


def test_a_mode_is_one_of_two() -> None:
    with pytest.raises(ConfigError, match=r"mode is 'remote'; it must be 'local' or 'shared'"):
        made(mode="remote")


DOORS: list[Callable[..., Any]] = [
    lambda **options: LLMRouterMiddleware(Starlette(), **options).router,
    lambda **options: LLMRouterApp(**options).router,
    lambda **options: LLMRouterWSGIMiddleware(lambda environ, start: [], **options)._new_router(1),
]


@pytest.mark.parametrize("door", DOORS)
def test_every_door_can_share(plugin: str, door: Callable[..., Any]) -> None:
    router = door(mode="shared", plugins=[plugin], routes=("inference", "extra"))
    assert isinstance(router, RemoteRouter)
    assert not router.running
