"""Objects of plugins that fail at everything: requests are served, and the failures counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.testing import FakeEngine, make_router

pytestmark = pytest.mark.asyncio

HELLO = [{"role": "user", "content": "hello"}]


def broken(*methods: str) -> Any:
    """Return an object of a plugin whose *methods* raise."""

    def fail(*arguments: Any, **named: Any) -> Any:
        raise ValueError("a bug")

    return SimpleNamespace(name="broken", **dict.fromkeys(methods, fail))


KINDS = {
    "model source": ("model_sources", broken("models")),
    "device probe": ("device_probes", broken("inventory", "used_bytes")),
    "estimator": (
        "estimators",
        broken("estimate", "record", "is_wanted", "is_prepared", "needs", "prepare", "cancel"),
    ),
    "placement policy": ("placement_policies", broken("place")),
    "eviction policy": ("eviction_policies", broken("rank")),
    "sleep handler": ("sleep_handlers", broken("sleep", "resume")),
    "observer": ("observers", broken("on_event")),
    "model resolver": ("model_resolvers", broken("resolve")),
}


def plugin() -> object:
    """Return a plugin that supplies one broken object of each kind."""

    def supplied(thing: Any) -> Callable[[], list[Any]]:
        return hookimpl(lambda: [thing])

    return SimpleNamespace(
        **{f"llm_router_register_{hook}": supplied(thing) for hook, thing in KINDS.values()}
    )


async def test_requests_are_served_and_the_failures_are_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine()
    router = make_router(
        tmp_path,
        plugin(),
        fake_engine=engine,
        models_max=2,
        placement_policy="broken",
        eviction_policy="broken",
    )
    async with router:
        for name in ("a", "b", "c", "a"):
            async with router.acquire(name) as llm:
                assert (await llm.chat(HELLO)).text == "echo: hello"
        with pytest.raises(Exception, match="'nobody' not found"):
            await router.lease("nobody")
        failures = router.overview().plugin_failures
    assert engine.loads == ["a", "b", "c", "a"]
    for kind in KINDS:
        counted = {name: n for name, n in failures.items() if name.startswith(kind)}
        assert counted, kind
        for name in counted:
            assert sum(message.startswith(f"{name} failed") for message in caplog.messages) == 1
    assert failures["eviction policy 'broken'"] == 2
