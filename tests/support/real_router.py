"""Routers with real workers, and what they did, for tests of who is loaded when."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from llm_router_mw import Router
from llm_router_mw.config import RouterConfig
from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.protocols import LeaseContract, Observer
from llm_router_mw.types import ContentDelta, InstanceState, ModelView, RouterEvent
from tests.support.waiting import until

LONG_SECONDS = 40.0
"""A bound on waiting for what takes a second, on a machine that is busy with other things."""
_NO_CHANGE = ("progress", "queued", "refused")
HELLO = [{"role": "user", "content": "hello"}]


class Story:
    """An observer that remembers what happened, in order."""

    name = "story"

    def __init__(self) -> None:
        self.events: list[RouterEvent] = []

    @hookimpl
    def llm_router_register_observers(self, config: RouterConfig) -> list[Observer]:
        return [self]

    def on_event(self, event: RouterEvent) -> None:
        self.events.append(event)

    @property
    def changes(self) -> list[tuple[str, InstanceState | None]]:
        """All changes of state, in order."""
        return [(each.model, each.state) for each in self.events if each.kind not in _NO_CHANGE]

    def count(self, state: InstanceState, *models: str) -> int:
        """Return how often one of *models* (all, if none is named) came into *state*."""
        return sum(
            changed is state and (model in models or not models) for model, changed in self.changes
        )

    def loads(self, *models: str) -> int:
        """Return how many loads of *models* were begun."""
        return self.count(InstanceState.LOADING, *models)

    def evicted(self) -> list[str]:
        """Return who was evicted, in order."""
        return [event.model for event in self.events if event.kind == "evicted"]

    def why(self, model: str, state: InstanceState) -> str:
        """Return the reason for which *model* last came into *state*."""
        return next(
            event.reason
            for event in reversed(self.events)
            if event.model == model and event.state is state and event.kind not in _NO_CHANGE
        )

    def happened_in_order(self, *steps: tuple[str, InstanceState]) -> bool:
        """Whether each model first came into its state after the one named before it."""
        places = [self.changes.index(step) for step in steps]
        return places == sorted(places)


class JumpingClock:
    """The machine's clock, which a test may put forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def jump(self, seconds: float) -> None:
        self._ahead += seconds


@asynccontextmanager
async def real_router(*plugins: object, **options: Any) -> AsyncIterator[Router]:
    """Run a router with workers of one thread each; *options* are its own."""
    # No margin: what else runs on the machine is not the matter of these tests.
    # No spare worker: it would take the processor from the one that is waited for.
    usual = {"n_threads": 1, "n_ctx": 512, "n_parallel": 2, "models_memory_margin": 0}
    usual |= {"spare_worker": False}
    with anyio.fail_after(50):
        async with Router(plugins=plugins, **{**usual, **options}) as router:
            yield router


def view(router: Router, model: str) -> ModelView:
    return next(each for each in router.models() if each.id == model)


def state(router: Router, model: str) -> InstanceState:
    return view(router, model).state


async def reached(router: Router, model: str, wanted: InstanceState) -> None:
    """Return when *model* is in the state *wanted*."""
    await until(lambda: state(router, model) is wanted, LONG_SECONDS)


async def waits(router: Router, model: str, requests: int = 1) -> None:
    """Return when so many *requests* wait for *model*."""
    await until(lambda: view(router, model).waiting == requests, LONG_SECONDS)


async def say(router: Router, model: str, **wishes: Any) -> str:
    """Return a short answer of *model*."""
    async with router.acquire(model, **wishes) as lease:
        return await talk(lease)


async def talk(lease: LeaseContract, tokens: int = 4) -> str:
    """Return a short answer under *lease*."""
    return (await lease.chat(HELLO, max_tokens=tokens, temperature=0)).text


def pid_of(router: Router, model: str) -> int:
    """Return the process id of the worker of *model*."""
    running = router._running
    assert running is not None
    worker = running.conductor.workers.get(view(router, model).model.instance_key)
    assert worker is not None
    assert worker.engine is not None
    assert worker.engine.pid is not None
    return worker.engine.pid


def text_of(deltas: list[Any]) -> str:
    """Return the text that *deltas* make."""
    return "".join(delta.text for delta in deltas if isinstance(delta, ContentDelta))
