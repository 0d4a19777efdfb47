"""What plugins run beside a router, from after its start to before its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup, TaskStatus

from llm_router_mw.errors import PluginLoadError
from llm_router_mw.faults import Faults
from llm_router_mw.protocols import RouterContract
from llm_router_mw.router.plugins import Implementation

_START_SECONDS = 30.0
_END_SECONDS = 10.0


@asynccontextmanager
async def beside(
    router: RouterContract, lifespans: Iterable[Implementation], faults: Faults, *, strict: bool
) -> AsyncIterator[None]:
    """Run *lifespans* meanwhile, each in a task of its own, so that none can hold up another.

    An installed plugin that fails is told to *faults* and does without, unless *strict*.

    Raises:
        PluginLoadError: another's did not start.
    """
    lives = [_Life(implementation, router, faults) for implementation in lifespans]
    failure: PluginLoadError | None = None
    async with anyio.create_task_group() as tasks:
        for life in lives:
            await _start(life, tasks)
            if life.error is None:
                continue
            if strict or life.implementation.plugin.origin != "installed":
                failure = life.error
                break
            life.tell(life.error)
        if failure is None:
            try:
                yield
            finally:
                await _end(lives)
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _start(life: _Life, tasks: TaskGroup) -> None:
    with anyio.move_on_after(_START_SECONDS) as bound:
        await tasks.start(life.run)
    if bound.cancelled_caught:
        title = life.implementation.plugin.title
        life.error = PluginLoadError(
            f"plugin {title!r}: its lifespan did not start within {_START_SECONDS:g} s"
        )


async def _end(lives: list[_Life]) -> None:
    """Let all *lives* end by themselves; who has not by then is cancelled."""
    for life in lives:
        life.over.set()
    with anyio.move_on_after(_END_SECONDS, shield=True):
        for life in lives:
            await life.ended.wait()


class _Life:
    """One plugin's lifespan."""

    def __init__(
        self, implementation: Implementation, router: RouterContract, faults: Faults
    ) -> None:
        self.implementation = implementation
        self._router = router
        self._faults = faults
        self.started = False
        self.error: PluginLoadError | None = None
        self.over = anyio.Event()
        """Set when it shall end."""
        self.ended = anyio.Event()

    async def run(self, task_status: TaskStatus[None]) -> None:
        try:
            await self._live(task_status)
        except PluginLoadError as error:
            self.error = error
        except Exception as error:
            about = f"plugin {self.implementation.plugin.title!r}: its lifespan failed: {error}"
            self.error = PluginLoadError(about)
            self.error.__cause__ = error
        finally:
            self.ended.set()
            if not self.started:
                task_status.started()
            elif self.error is not None:
                # At once: what runs beside the router may fail long before that ends.
                self.tell(self.error)

    def tell(self, error: PluginLoadError) -> None:
        """Note that it failed."""
        self._faults.add("lifespan of plugin", self.implementation.plugin.title, error)

    async def _live(self, task_status: TaskStatus[None]) -> None:
        manager = self.implementation(router=self._router)
        if manager is None:
            return
        async with manager:
            self.started = True
            task_status.started()
            await self.over.wait()
