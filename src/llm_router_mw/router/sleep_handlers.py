"""Runs sleep handlers: one after the other, each for so long at most, and whatever they do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import anyio
import anyio.abc

from llm_router_mw.faults import Faults
from llm_router_mw.protocols import EngineInstance, KeepsSequences, SleepHandler, SnapshotStore
from llm_router_mw.router.handle import Handle, Surroundings
from llm_router_mw.router.patience import Patience
from llm_router_mw.types import InstanceKey, Step
from llm_router_mw.wire import SnapshotNews

_HURRIED_SECONDS = 2.0
"""What a handler may take at most where requests wait for the memory."""
_RESUME_SECONDS = 0.1
"""How long the first request waits for handlers that give something back; they go on meanwhile."""

OnFault = Callable[[InstanceKey, str], None]
"""Is told of which instance a handler failed, and how."""


class SleepHandlers:
    """The sleep handlers of a router. None of them can hold up an instance, or end the router."""

    def __init__(
        self,
        handlers: Sequence[SleepHandler],
        tasks: anyio.abc.TaskGroup,
        faults: Faults,
        on_fault: OnFault,
        *,
        models: Callable[[InstanceKey], Sequence[str]],
        hurried: Callable[[], bool],
        timeout_seconds: float,
        closing_seconds: float,
    ) -> None:
        """Run *handlers* in *tasks*.

        *models* returns the models of an instance; *hurried* tells whether requests wait. A handler
        may take *timeout_seconds*, and no more than *closing_seconds* while the router closes.
        """
        self._handlers = tuple(handlers)
        self._stores = [each for each in handlers if isinstance(each, SnapshotStore)]
        self._tasks = tasks
        self._faults = faults
        self._on_fault = on_fault
        self._timeout_seconds = timeout_seconds
        self._closing_seconds = closing_seconds
        self._models = models
        self._hurried = hurried
        self._closing = False

    def close(self) -> None:
        """Note that the router is closing."""
        self._closing = True

    def handle(
        self,
        key: InstanceKey,
        engine: EngineInstance,
        identity: str,
        held: Callable[[], Mapping[str, int]],
    ) -> Handle:
        """Return what handlers are given of *key*, which *engine* runs.

        Stores are told from now on what the worker says about their files.
        """
        surroundings = Surroundings(self._models, self._hurried, lambda: self._closing)
        handle = Handle(key, engine, identity, surroundings, held)

        def heard(news: SnapshotNews) -> None:
            for store in self._stores:
                self._call(store, handle, partial(store.heard, handle, news))

        if isinstance(engine, KeepsSequences):
            engine.listen(heard)
        return handle

    def left(self, handle: Handle) -> None:
        """Have stores told that the process of *handle* is gone."""
        handle.is_open = False
        for store in self._stores:
            self._call(store, handle, partial(store.left, handle))

    async def sleep(self, handle: Handle, level: Step) -> None:
        """Let handlers keep what they want of *handle*, which nobody uses."""
        handle.is_open = True
        try:
            for handler in self._handlers:
                seconds = self._patience_with(handle)
                work = self._start(handler, handle, partial(handler.sleep, handle, level))
                if not await work.ended_within(seconds):
                    work.give_up(seconds)
        finally:
            # One that goes on regardless finds nothing to go on with.
            handle.is_open = False

    def _patience_with(self, handle: Handle) -> float:
        seconds = self._timeout_seconds
        if handle.closing:
            seconds = min(seconds, self._closing_seconds)
        return min(seconds, _HURRIED_SECONDS) if handle.hurried else seconds

    async def resume(self, handle: Handle) -> None:
        """Let handlers give *handle* back what they have; return soon, done or not."""
        works = [
            self._start(handler, handle, partial(handler.resume, handle))
            for handler in self._handlers
        ]
        with anyio.move_on_after(_RESUME_SECONDS):
            for work in works:
                await work.done.wait()
        for work in works:
            if not work.done.is_set():
                self._tasks.start_soon(work.watch, self._timeout_seconds)

    def _start(
        self, handler: SleepHandler, handle: Handle, call: Callable[[], Awaitable[None]]
    ) -> _Work:
        def failed(error: Exception) -> None:
            self._failed(handler, handle, error)

        work = _Work(call, failed)
        self._tasks.start_soon(work.run)
        return work

    def _call(self, handler: SleepHandler, handle: Handle, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._failed(handler, handle, error)

    def _failed(self, handler: SleepHandler, handle: Handle, error: Exception) -> None:
        self._faults.add("sleep handler", f"{handler.name} of {handle.key}", error)
        self._on_fault(handle.key, f"sleep handler {handler.name!r} failed: {error}")


class _Work:
    """One call of a handler, in a task of its own: it may refuse to end when it is cancelled."""

    def __init__(
        self, call: Callable[[], Awaitable[None]], failed: Callable[[Exception], None]
    ) -> None:
        self._call = call
        self._failed = failed
        self._scope = anyio.CancelScope()
        self.done = anyio.Event()

    async def run(self) -> None:
        try:
            with self._scope:
                await self._call()
        except Exception as error:
            if not self._scope.cancel_called:  # it has been told already that it took too long
                self._failed(error)
        finally:
            self.done.set()

    async def ended_within(self, seconds: float) -> bool:
        return await Patience(seconds).outlasts(self.done)

    def give_up(self, seconds: float) -> None:
        self._failed(TimeoutError(f"it took longer than {seconds:g} s"))
        self._scope.cancel()

    async def watch(self, seconds: float) -> None:
        if not await self.ended_within(seconds):
            self.give_up(seconds)
