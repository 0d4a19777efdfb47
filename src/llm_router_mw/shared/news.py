"""What all web processes are told unasked: what happens, and how models stand."""

from __future__ import annotations

import logging

import anyio
from msgspec import Struct

from llm_router_mw.protocols import RouterContract
from llm_router_mw.shared.messages import Happened, Views, Welcome
from llm_router_mw.shared.outflow import Outflow
from llm_router_mw.types import ModelView, RouterEvent, RouterView
from llm_router_mw.wire import encode

logger = logging.getLogger("llm_router_mw.shared")

_LOOK_SECONDS = 0.1
"""Between two looks at what may have changed."""


class News:
    """Keeps the mirrors of all web processes as the router is.

    Events are told at once. What changes without one (leases, requests that wait) is looked at a
    moment after somebody said that something happened, and what differs is told.
    """

    def __init__(self, router: RouterContract) -> None:
        self._router = router
        self._outflows: set[Outflow] = set()
        self._models: dict[str, ModelView] = {}
        """As all web processes know them."""
        self._overview: RouterView | None = None
        self._noted = anyio.Event()
        self.looked = anyio.Event()
        """Models have been looked at again; replaced each time."""

    def add(self, outflow: Outflow, version: str, pid: int) -> None:
        """Welcome the web process at the end of *outflow*, and tell it what happens from now on."""
        self.push()
        models, overview = tuple(self._models.values()), self._router.overview()
        outflow.send(Welcome(version, pid, models, overview))
        self._outflows.add(outflow)

    def remove(self, outflow: Outflow) -> None:
        """Tell *outflow* nothing more."""
        self._outflows.discard(outflow)

    def note(self) -> None:
        """Something happened that may have changed how models stand: have a look soon."""
        self._noted.set()

    def push(self) -> None:
        """Tell what has changed, before anything else is said."""
        models, overview = self._router.models(), self._router.overview()
        changed = tuple(view for view in models if self._models.get(view.id) != view)
        if changed or overview != self._overview:
            self._remember(changed)
            self._overview = overview
            self._tell(Views(changed, overview))
        self.looked.set()
        self.looked = anyio.Event()

    async def recapitulate(self) -> tuple[Struct, ...]:
        """Return what makes up for all news that a web process has missed."""
        async with self._router.events() as events:
            snapshot = await anext(events)
        return Happened(snapshot), Views((), self._router.overview())

    async def run(self) -> None:
        """Tell what happens, for as long as the router runs."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look_when_noted)
            await self._follow()
            tasks.cancel_scope.cancel()

    async def _follow(self) -> None:
        async with self._router.events() as events:
            async for event in events:
                self._tell_of(event)
                # It may tell of a moment that is over: the look that follows sees to the rest.
                self.note()

    def _tell_of(self, event: RouterEvent) -> None:
        try:
            self._tell(Happened(event))
        except (TypeError, ValueError, OverflowError):  # what a plugin says may be no text
            logger.exception("an event cannot be told to web processes")
        else:
            self._remember(event.models)

    async def _look_when_noted(self) -> None:
        while True:
            await self._noted.wait()
            await anyio.sleep(_LOOK_SECONDS)  # what happens until then is told together
            self._noted = anyio.Event()
            self.push()

    def _remember(self, views: tuple[ModelView, ...]) -> None:
        self._models.update((view.id, view) for view in views)

    def _tell(self, message: Struct) -> None:
        if self._outflows:
            frame = encode(message)
            for outflow in self._outflows:
                outflow.tell(frame)
