"""Has estimators find out beforehand what they cannot tell from a model's header.

That takes a child process part of a second and some memory, so it is done when the router starts,
one model after the other, and while a request waits only for the places that matter most.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import anyio
import anyio.to_thread

from llm_router_mw.errors import LLMRouterError
from llm_router_mw.faults import Faults
from llm_router_mw.protocols import (
    Estimator,
    MemoryAccount,
    PlacementPolicy,
    PreparingEstimator,
)
from llm_router_mw.types import Device, InstanceKey, Model, Placement

logger = logging.getLogger("llm_router_mw.memory")

When = Literal["auto", "always", "never"]
_PLACES = 4
"""How many of a model's places are looked into, the best ones: more would keep a request waiting,
and the rest is told by those who know less."""
_PAUSE_SECONDS = 0.25
"""Between two models in the background: reading headers must not keep requests from their turn."""
_ROOM_SECONDS = 30.0
"""After which it is tried again where there was no room."""
_CANCEL_AGAIN_SECONDS = 0.05
"""Whoever is told to end before his thread has begun may not have heard it."""
_TRIES = 3
"""Of one model in the background, each of which was cut short by a request."""


class DryRuns:
    """Prepares estimates, one at a time. For the router's loop only."""

    def __init__(
        self,
        when: When,
        estimators: Iterable[Estimator],
        policy: PlacementPolicy,
        account: MemoryAccount,
        devices: Callable[[], Sequence[Device]],
        faults: Faults,
    ) -> None:
        """*when* is the option ``dry_runs``; memory is charged to *account* while it is used.

        An estimator that fails is told to *faults*; its estimate is done without.
        """
        self._faults = faults
        self._when = when
        self._estimators = [each for each in estimators if isinstance(each, PreparingEstimator)]
        self._policy = policy
        self._account = account
        self._devices = devices
        self._turn = anyio.Lock()
        self._in_background: anyio.CancelScope | None = None
        """What runs for nobody in particular, and gives way."""

    async def before_price(self, model: Model) -> None:
        """Find out what is needed to price *model* at once, if nobody knows enough of it."""
        if self._when == "never" or not self._estimators:
            return
        missing = await self._missing(model, always=False)
        if not missing:
            return
        if self._in_background is not None:
            self._in_background.cancel()
        await self._prepare(model, missing)

    async def run(
        self,
        models: Iterable[Model],
        on_prepared: Callable[[InstanceKey], None],
    ) -> None:
        """Prepare *models* one after the other, and tell *on_prepared* of each."""
        if self._when == "never" or not self._estimators:
            return
        waiting = deque((model, _TRIES) for model in models)
        while waiting:
            await anyio.sleep(_PAUSE_SECONDS)
            model, tries = waiting.popleft()
            with anyio.CancelScope() as scope:
                self._in_background = scope
                try:
                    missing = await self._missing(model, always=self._when == "always")
                    done = not missing or await self._prepare(model, missing)
                finally:
                    self._in_background = None
            if scope.cancelled_caught:
                if tries > 1:
                    waiting.append((model, tries - 1))
            elif not done:
                waiting.append((model, tries))
                await anyio.sleep(_ROOM_SECONDS)
            elif missing:
                on_prepared(model.instance_key)

    async def _missing(
        self, model: Model, *, always: bool
    ) -> list[tuple[PreparingEstimator, Placement]]:
        """Return what is to be found out: of a model that nobody knows enough of, or *always*."""
        devices = self._devices()
        places: list[Placement] = []

        def look(estimator: PreparingEstimator) -> list[tuple[PreparingEstimator, Placement]]:
            if not (always or estimator.is_wanted(model)):
                return []
            if not places:
                places.extend(self._policy.place(model, devices)[:_PLACES])
            return [
                (estimator, place)
                for place in places
                if not estimator.is_prepared(model, place, devices)
            ]

        missing = []
        for estimator in self._estimators:
            with self._told(estimator, model):
                missing += await anyio.to_thread.run_sync(look, estimator)
        return missing

    @contextmanager
    def _told(self, estimator: PreparingEstimator, model: Model) -> Iterator[None]:
        """Go on where *estimator* fails: what it would have found out is done without."""
        try:
            yield
        except LLMRouterError as error:  # a load will say so
            logger.info("%s: no dry run: %s", model.id, error)
        except Exception as error:
            self._faults.add("estimator", estimator.name, error)

    async def _prepare(
        self, model: Model, missing: Iterable[tuple[PreparingEstimator, Placement]]
    ) -> bool:
        """Find out what is *missing*; return False if there was no room for that."""
        devices = self._devices()
        async with self._turn:
            for estimator, placement in missing:
                with self._told(estimator, model):
                    needs = estimator.needs(placement, devices)
                    if any(size > self._account.room(pool) for pool, size in needs.items()):
                        logger.info("%s: no room for a dry run now", model.id)
                        return False
                    self._account.hold(needs)
                    try:
                        await self._cancellable(estimator, model, placement, devices)
                    finally:
                        self._account.hold({})
        return True

    async def _cancellable(
        self,
        estimator: PreparingEstimator,
        model: Model,
        placement: Placement,
        devices: Sequence[Device],
    ) -> None:
        """Let *estimator* prepare in a thread; if this is cancelled, it is told to end at once."""
        failures: list[Exception] = []
        over = anyio.Event()

        async def prepare() -> None:
            try:
                await anyio.to_thread.run_sync(estimator.prepare, model, placement, devices)
            except Exception as error:  # out of the task group it would come wrapped
                failures.append(error)
            finally:
                over.set()

        async def watch() -> None:
            try:
                await over.wait()
            finally:
                with anyio.CancelScope(shield=True), self._told(estimator, model):
                    while not over.is_set():
                        estimator.cancel()
                        with anyio.move_on_after(_CANCEL_AGAIN_SECONDS):
                            await over.wait()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(prepare)
            tasks.start_soon(watch)
        for failure in failures:
            raise failure
