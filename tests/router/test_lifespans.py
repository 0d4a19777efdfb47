"""What plugins run beside a router: each by itself, from after its start to before its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

import anyio
import anyio.lowlevel
import pytest

from llm_router_mw.errors import PluginLoadError
from llm_router_mw.faults import Faults
from llm_router_mw.protocols import RouterContract
from llm_router_mw.router import lifespans
from llm_router_mw.router.lifespans import beside
from llm_router_mw.router.plugins import Implementation, Plugin

pytestmark = pytest.mark.asyncio

ROUTER = cast("RouterContract", object())
Life = Callable[[RouterContract], AbstractAsyncContextManager[None]]


def of(life: Life, *, name: str = "mine", installed: bool = True) -> Implementation:
    plugin = Plugin(name, "installed" if installed else "given")
    return Implementation(plugin, "llm_router_lifespan", life, ("router",))


def recorder(log: list[str], name: str) -> Life:
    @asynccontextmanager
    async def life(router: RouterContract) -> AsyncIterator[None]:
        assert router is ROUTER
        log.append(f"{name} up")
        yield
        log.append(f"{name} down")

    return life


@asynccontextmanager
async def no_start(router: RouterContract) -> AsyncIterator[None]:
    raise ValueError("no database")
    yield


@asynccontextmanager
async def no_end(router: RouterContract) -> AsyncIterator[None]:
    yield
    raise ValueError("disk full")


@asynccontextmanager
async def hangs_at_start(router: RouterContract) -> AsyncIterator[None]:
    await anyio.sleep_forever()
    yield


@asynccontextmanager
async def hangs_at_end(router: RouterContract) -> AsyncIterator[None]:
    yield
    await anyio.sleep_forever()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespans, "_START_SECONDS", 0.05)
    monkeypatch.setattr(lifespans, "_END_SECONDS", 0.05)


async def test_all_are_up_before_the_router_is_used_and_down_before_it_closes() -> None:
    log: list[str] = []
    lives = [of(recorder(log, "a")), of(recorder(log, "b"), name="other")]
    async with beside(ROUTER, lives, Faults(), strict=False):
        log.append("in use")
    assert log[:3] == ["a up", "b up", "in use"]
    assert sorted(log[3:]) == ["a down", "b down"]


@pytest.mark.parametrize("life", [no_start, hangs_at_start])
async def test_an_installed_plugin_that_does_not_start_is_done_without(life: Life) -> None:
    faults, log = Faults(), list[str]()
    async with beside(ROUTER, [of(life), of(recorder(log, "b"))], faults, strict=False):
        assert log == ["b up"]
    assert faults.counts == {"lifespan of plugin 'mine'": 1}


@pytest.mark.parametrize(("life", "why"), [(no_start, "no database"), (hangs_at_start, "within")])
@pytest.mark.parametrize(("strict", "installed"), [(True, True), (False, False)])
async def test_another_that_does_not_start_is_an_error(
    life: Life, why: str, strict: bool, installed: bool
) -> None:
    lives = [of(life, installed=installed)]
    with pytest.raises(PluginLoadError, match=f"plugin 'mine'.*{why}"):
        async with beside(ROUTER, lives, Faults(), strict=strict):
            pytest.fail("it must not come so far")


@pytest.mark.parametrize("life", [no_end, hangs_at_end])
async def test_one_that_ends_badly_holds_up_nothing(life: Life) -> None:
    log: list[str] = []
    with anyio.fail_after(5):
        async with beside(ROUTER, [of(life), of(recorder(log, "b"))], Faults(), strict=True):
            pass
    assert log == ["b up", "b down"]


async def test_a_bad_end_is_told() -> None:
    faults = Faults()
    async with beside(ROUTER, [of(no_end)], faults, strict=False):
        pass
    assert faults.counts == {"lifespan of plugin 'mine'": 1}


async def test_one_that_fails_meanwhile_is_told_at_once() -> None:
    failing, faults = anyio.Event(), Faults()

    async def fail() -> None:
        await failing.wait()
        raise ValueError("no connection")

    @asynccontextmanager
    async def life(router: RouterContract) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            yield

    with anyio.fail_after(5):
        async with beside(ROUTER, [of(life)], faults, strict=False):
            failing.set()
            while not faults.counts:
                await anyio.lowlevel.checkpoint()
            assert faults.counts == {"lifespan of plugin 'mine'": 1}
    assert faults.counts == {"lifespan of plugin 'mine'": 1}


async def test_a_plugin_may_have_nothing_to_run() -> None:
    nothing = Implementation(Plugin("mine", "given"), "llm_router_lifespan", lambda: None, ())
    async with beside(ROUTER, [nothing], Faults(), strict=True):
        pass
