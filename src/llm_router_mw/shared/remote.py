"""The router of a web process that shares one with others."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import cached_property
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from llm_router_mw.config import RouterConfig
from llm_router_mw.protocols import Clock, OnQueued, RouteGroup
from llm_router_mw.router.bridge import Bridge
from llm_router_mw.router.home import HomeRouter, not_running
from llm_router_mw.router.hub import EventHub
from llm_router_mw.router.registry import load_route_groups
from llm_router_mw.shared.hold import Hold
from llm_router_mw.shared.keeper import Keeper
from llm_router_mw.shared.link import Link, News, Request
from llm_router_mw.shared.meeting import Meeting, meet
from llm_router_mw.shared.messages import (
    GetCached,
    GetTasks,
    Happened,
    Load,
    PurgeCache,
    PutToSleep,
    Unload,
    Welcome,
)
from llm_router_mw.shared.mirror import Mirror
from llm_router_mw.shared.plan import Plan, plan_for
from llm_router_mw.shared.remote_lease import RemoteLease
from llm_router_mw.types import (
    ModelView,
    Purged,
    RouterView,
    SleepLevel,
    StoredSnapshot,
    Task,
    Wish,
)

T = TypeVar("T")


class RemoteRouter(HomeRouter):
    """As :class:`~llm_router_mw.router.Router`; the models live in a host process, once for all.

    Whoever enters first starts the host. When it is lost, another one is started, and what it had
    not begun to answer is asked again. Options are those of ``Router``.

    Args:
        config: or *options*, as keywords.
        plugins: dotted names of modules, which the host imports.
        meet: finds the host.
        clock: tells the time of events that no host tells of.

    Raises:
        ConfigError: an option is wrong, or something cannot be shared with another process.
    """

    def __init__(
        self,
        config: RouterConfig | None = None,
        *,
        plugins: Iterable[object] = (),
        meet: Callable[[Plan], Awaitable[Meeting]] = meet,
        clock: Clock = time.monotonic,
        **options: Any,
    ) -> None:
        super().__init__(config, options, clock)
        self._plan = plan_for(self.config, plugins)
        self._meet = meet
        self._hub = EventHub(())
        self._mirror = Mirror(
            RouterView(
                models_max=self.config.models_max, models_autoload=self.config.models_autoload
            )
        )
        self._keeper: Keeper | None = None

    @cached_property
    def route_groups(self) -> Mapping[str, RouteGroup]:
        """What plugins would add to the routes of a door, by name; served by this process."""
        return load_route_groups(self.config, self._plan.plugins)

    async def _start(self, stack: AsyncExitStack) -> None:
        portal = await stack.enter_async_context(BlockingPortal())
        stack.push_async_callback(portal.stop, cancel_remaining=True)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        keeper = Keeper(
            lambda: self._meet(self._plan),
            lambda meeting: Link(meeting, self._heard),
            on_welcome=self._welcomed,
            on_lost=self._lost,
            queue_timeout_seconds=self.config.queue_timeout_seconds,
        )
        stack.push_async_callback(keeper.aclose)
        await keeper.open()
        tasks.start_soon(keeper.run)
        self._keeper, self._bridge = keeper, Bridge(portal)
        stack.callback(self._closing)

    def _closing(self) -> None:
        super()._closing()
        self._keeper = None

    # The host

    def _welcomed(self, welcome: Welcome) -> None:
        self._mirror.begin(welcome.models, welcome.overview)
        if self._keeper is not None:  # else nobody can have subscribed yet
            self._hub.publish(self._snapshot())

    def _lost(self) -> None:
        self._mirror.lose()
        self._hub.publish(self._snapshot())

    def _heard(self, news: News) -> None:
        if isinstance(news, Happened):
            self._mirror.change(news.event.models)
            self._hub.publish(news.event)
        else:
            self._mirror.change(news.models, news.overview)

    def _require_keeper(self) -> Keeper:
        keeper = self._keeper
        if keeper is None:
            raise not_running()
        return keeper

    async def _answer(self, request: Request, kind: type[T]) -> T:
        return await self._at_home(lambda: self._require_keeper().answer(request, kind))

    # The verbs

    async def _grant(
        self, names: Sequence[str], wish: Wish, on_queued: OnQueued | None
    ) -> tuple[RemoteLease, ...]:
        hold = Hold(self._require_keeper(), names, wish)
        await hold.take(on_queued)
        return tuple(RemoteLease(hold, place) for place in range(len(names)))

    async def load(self, model: str, *, wait: bool = True) -> None:
        """Load *model*; without *wait* return when the load has been asked for."""
        await self._answer(lambda number: Load(number, model, wait), type(None))

    async def unload(self, model: str, *, force: bool = False, wait: bool = True) -> bool:
        """As ``Router.unload``."""
        return await self._answer(lambda number: Unload(number, model, force, wait), bool)

    async def sleep(self, model: str, *, level: SleepLevel = "full", wait: bool = True) -> bool:
        """As ``Router.sleep``."""
        return await self._answer(lambda number: PutToSleep(number, model, level, wait), bool)

    async def purge_cache(self, model: str | None = None) -> Purged:
        """As ``Router.purge_cache``."""
        return await self._answer(lambda number: PurgeCache(number, model), Purged)

    async def tasks(self, model: str) -> tuple[Task, ...]:
        """As ``Router.tasks``."""
        return await self._answer(lambda number: GetTasks(number, model), tuple[Task, ...])

    async def cached(self) -> tuple[StoredSnapshot, ...]:
        """As ``Router.cached``."""
        return await self._answer(GetCached, tuple[StoredSnapshot, ...])

    def models(self) -> tuple[ModelView, ...]:
        """All models and their states as the host last said, at once."""
        self._require_bridge()
        return self._mirror.models

    def overview(self) -> RouterView:
        """The router as a whole, as the host last said, at once."""
        self._require_bridge()
        return self._mirror.overview
