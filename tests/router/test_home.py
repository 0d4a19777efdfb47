"""What every router does on its own loop, wherever its models live."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import BlockingPortal

from llm_router_mw.config import RouterConfig
from llm_router_mw.errors import (
    ConfigError,
    InvalidRequestError,
    ModelNotFoundError,
    RouterNotRunningError,
)
from llm_router_mw.protocols import LeaseContract, OnQueued
from llm_router_mw.router.bridge import Bridge, BridgedEvents, BridgedLease
from llm_router_mw.router.home import HomeRouter
from llm_router_mw.router.hub import EventHub
from llm_router_mw.types import AS_USUAL, ModelView, QueuePlace, RouterEvent, Wish

pytestmark = pytest.mark.asyncio

T = TypeVar("T")


class Hermit(HomeRouter):
    """Grants whatever it is asked for, but not "none"."""

    def __init__(self, **options: Any) -> None:
        super().__init__(None, options, lambda: 42.0)
        self._hub = EventHub(())
        self.asked: list[tuple[Sequence[str], Wish]] = []
        self.held: list[str] = []
        self.loads: list[tuple[str, bool]] = []
        self.trouble: Exception | None = None

    async def _start(self, stack: AsyncExitStack) -> None:
        portal = await stack.enter_async_context(BlockingPortal())
        stack.push_async_callback(portal.stop, cancel_remaining=True)
        if self.trouble is not None:
            raise self.trouble
        self._bridge = Bridge(portal)
        stack.callback(self._closing)

    async def _grant(
        self, names: Sequence[str], wish: Wish, on_queued: OnQueued | None
    ) -> tuple[LeaseContract, ...]:
        self.asked.append((tuple(names), wish))
        if on_queued is not None:
            on_queued(QueuePlace(position=1))
        if "none" in names:
            raise ModelNotFoundError("no model 'none'")
        self.held += names
        return tuple(
            cast(
                "LeaseContract",
                SimpleNamespace(model=name, release=lambda name=name: self.held.remove(name)),
            )
            for name in names
        )

    def models(self) -> tuple[ModelView, ...]:
        self._require_bridge()
        return ()

    async def load(self, model: str, *, wait: bool = True) -> None:
        async def note() -> None:
            self.loads.append((model, wait))

        await self._at_home(note)


async def elsewhere(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* returns on an event loop of its own, in another thread."""
    return await anyio.to_thread.run_sync(anyio.run, call)


async def test_it_takes_a_config_or_options() -> None:
    assert Hermit(models_max=7).config == RouterConfig(models_max=7)
    with pytest.raises(ConfigError, match="not both"):
        HomeRouter.__init__(Hermit(), RouterConfig(), {"models_max": 1}, lambda: 0.0)


async def test_it_takes_nothing_else() -> None:
    with pytest.raises(ConfigError, match="'models' is no RouterConfig; give options by name"):
        HomeRouter.__init__(Hermit(), "models", {}, lambda: 0.0)  # type: ignore[arg-type]


async def test_it_runs_once_at_a_time() -> None:
    router = Hermit()
    for _ in range(2):
        async with router as entered:
            assert entered is router
            assert router.running
            with pytest.raises(RuntimeError, match="already running"):
                await router.__aenter__()
        assert not router.running


async def test_a_start_that_fails_leaves_nothing_behind() -> None:
    router = Hermit()
    router.trouble = ValueError("trouble")
    with pytest.raises(ValueError, match="trouble"):
        async with router:
            pass
    router.trouble = None
    async with router:
        assert router.running


async def test_an_error_of_the_app_leaves_it_as_it_is() -> None:
    with pytest.raises(ValueError, match="the app's own"):
        async with Hermit():
            raise ValueError("the app's own")


async def test_it_has_to_run() -> None:
    router = Hermit()
    for verb in (lambda: router.lease("a"), lambda: router.load("a"), lambda: router.wake("a")):
        with pytest.raises(RouterNotRunningError, match="async with"):
            await verb()
    with pytest.raises(RouterNotRunningError):
        async with router.events():
            pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": "high"}, "priority: expected `int`, got `str`"),
        ({"priorty": 1}, "unknown option 'priorty'; did you mean 'priority'?"),
        ({"timeout": 1}, "unknown option 'timeout'; known are autoload, "),
    ],
)
async def test_a_wrong_option_of_a_request_is_named(options: Any, message: str) -> None:
    async with Hermit() as router:
        with pytest.raises(InvalidRequestError, match=re.escape(message)):
            async with router.acquire("a", **options):
                pass


async def test_what_is_acquired_is_given_back() -> None:
    async with Hermit() as router:
        async with router.acquire("a", priority=2, owner="me") as lease:
            assert (lease.model, router.held) == ("a", ["a"])
        async with router.acquire("a", "b") as leases:
            assert [lease.model for lease in leases] == router.held == ["a", "b"]
        assert router.held == []
        assert router.asked == [(("a",), Wish(priority=2, owner="me")), (("a", "b"), AS_USUAL)]


async def test_a_lease_is_given_back_by_who_took_it() -> None:
    places: list[QueuePlace] = []
    async with Hermit() as router:
        lease = await router.lease("a", Wish(priority=1), on_queued=places.append)
        assert router.held == ["a"]
        lease.release()
        with pytest.raises(ModelNotFoundError):
            await router.lease("none")
        assert router.held == []
    assert places == [QueuePlace(position=1)]


async def test_from_another_loop_all_happens_at_home() -> None:
    async with Hermit() as router:

        async def visit() -> None:
            async with router.acquire("a", "b") as leases:
                assert all(isinstance(lease, BridgedLease) for lease in leases)
                assert router.held == ["a", "b"]
            await router.wake("c", wait=False)
            with pytest.raises(ModelNotFoundError):
                await router.lease("none")
            async with router.events() as events:
                assert isinstance(events, BridgedEvents)
                assert (await anext(events)).kind == "snapshot"

        await elsewhere(visit)
        with anyio.fail_after(10):
            while router.held or router._hub._subscriptions:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        assert router.loads == [("c", False)]


async def test_who_names_no_model_is_told_so() -> None:
    async with Hermit() as router:
        with pytest.raises(InvalidRequestError, match="name those that are to be held"):
            await router.leases(())


async def test_to_wake_is_to_load() -> None:
    async with Hermit() as router:
        await router.wake("a")
    assert router.loads == [("a", True)]


async def test_events_begin_with_a_snapshot_and_end_with_the_router() -> None:
    heard: list[RouterEvent] = []
    async with anyio.create_task_group() as tasks, Hermit() as router:

        async def listen() -> None:
            async with router.events() as events:
                heard.extend([event async for event in events])

        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        router._hub.publish(RouterEvent(kind="status", model="a", at_seconds=43.0))
    assert [(event.kind, event.at_seconds) for event in heard] == [
        ("snapshot", 42.0),
        ("status", 43.0),
    ]
