"""Calls into the loop that owns a router, from any other loop or thread.

The router's state is touched on its own loop only. A caller in another loop waits in a thread, so
its loop stays free; when it is cancelled, so is the call, and what the call had already got is
given back.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from llm_router_mw.errors import LLMRouterError, RouterNotRunningError
from llm_router_mw.protocols import DeltaStream, LeaseContract
from llm_router_mw.router.verbs import LeaseVerbs
from llm_router_mw.types import Delta, ModelInfo, RouterEvent, Task, Usage

logger = logging.getLogger("llm_router_mw.router")

T = TypeVar("T")


class Bridge:
    """Knows the owner loop. Made on it."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._home = threading.get_ident()
        self._call_soon = _call_soon_here()
        self._context = _context_of_here()

    @property
    def is_home(self) -> bool:
        """Whether the caller is on the owner loop's thread."""
        return threading.get_ident() == self._home

    async def run(
        self, call: Callable[[], Awaitable[T]], undo: Callable[[T], None] | None = None
    ) -> T:
        """Return what *call* returns on the owner loop.

        If the caller is cancelled too late to cancel the call, *undo* gets its result there.

        Raises:
            RouterNotRunningError: the router is closed, or was while the call was under way.
        """
        lock = threading.Lock()  # either side may be first: the call's begin or end, or cancelling
        abandoned = False
        futures: list[Future[T]] = []
        results: list[T] = []

        def ask() -> T:
            future = self._start(guarded)
            with lock:
                futures.append(future)
                too_late = abandoned
            if too_late:
                self.run_soon(future.cancel)
            return future.result()

        async def guarded() -> T:
            if abandoned:
                raise CancelledError
            result = await call()
            with lock:
                if not abandoned:
                    results.append(result)
                elif undo is not None:
                    undo(result)
            return result

        try:
            # In a thread from the start: the owner loop, while it is blocked, takes no call. With a
            # limiter of its own: a long wait must not use up the loop's shared threads.
            return await anyio.to_thread.run_sync(
                ask, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        except anyio.get_cancelled_exc_class():
            with lock:
                abandoned = True
            for future in futures:
                self.run_soon(future.cancel)
            if results and undo is not None:
                self.run_soon(lambda: undo(results[0]))
            raise
        except CancelledError as error:
            raise RouterNotRunningError("the router was closed meanwhile") from error

    def run_soon(self, call: Callable[[], object]) -> None:
        """Have *call* made on the owner loop, without waiting for it.

        A router that is closed has given back by itself what *call* would.
        """
        if self.is_home:
            call()
            return

        def made() -> None:
            try:
                call()
            except Exception:  # on a loop of trio it would end all
                logger.exception("a call from another event loop failed")

        with suppress(RuntimeError):  # the loop has ended
            self._call_soon(self._context.run, made)

    def _start(self, call: Callable[[], Awaitable[T]]) -> Future[T]:
        try:
            return self._portal.start_task_soon(call)
        except RuntimeError as error:
            raise RouterNotRunningError("the router has been closed") from error


def _call_soon_here() -> Callable[..., object]:
    """Return what has a call made on this loop, from any thread and at once."""
    loop: Any = anyio.lowlevel.current_token().native_token
    # A loop of asyncio, or else a token of trio. anyio's own way waits for a loop that is blocked.
    call_soon = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    return cast("Callable[..., object]", call_soon)


def _context_of_here() -> Context:
    """Return a context in which anyio knows this loop, also where no task runs.

    It asks sniffio, where an app has that, and sniffio goes by the task.
    """
    context = copy_context()
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, sniffio.current_async_library())
    return context


async def _next_or_none(iterator: AsyncIterator[T]) -> T | None:
    # StopAsyncIteration can't be carried by a future.
    return await anext(iterator, None)


class BridgedStream:
    """A stream that runs on the owner loop and is read on another."""

    def __init__(self, bridge: Bridge, lease: LeaseContract, task: Task, release: bool) -> None:
        self._bridge = bridge
        self._lease = lease
        self._task = task
        self._release = release
        self._stream: DeltaStream | None = None
        self._cancelled = False
        self._error: LLMRouterError | None = None

    @property
    def usage(self) -> Usage:
        """As ``DeltaStream.usage``."""
        return self._stream.usage if self._stream is not None else Usage()

    def __aiter__(self) -> BridgedStream:
        return self

    async def __anext__(self) -> Delta:
        delta = await self._bridge.run(self._next)
        if delta is None:
            raise StopAsyncIteration
        return delta

    async def _next(self) -> Delta | None:
        if self._stream is None:
            if self._error is not None:
                raise self._error
            if self._cancelled:
                return None
            self._stream = self._lease.stream(self._task, release=self._release)
        return await _next_or_none(self._stream)

    def cancel(self, error: LLMRouterError | None = None) -> None:
        self._bridge.run_soon(lambda: self._cancel(error))

    def _cancel(self, error: LLMRouterError | None) -> None:
        self._cancelled = True
        self._error = error
        if self._stream is not None:
            self._stream.cancel(error)
        elif self._release:  # what is never started never ends by itself
            self._lease.release()


class BridgedLease(LeaseVerbs):
    """A lease that is held on the owner loop and used on another."""

    def __init__(self, bridge: Bridge, lease: LeaseContract) -> None:
        self._bridge = bridge
        self._lease = lease

    @property
    def model(self) -> str:
        """Id of the leased model."""
        return self._lease.model

    @property
    def info(self) -> ModelInfo:
        """Facts about the loaded instance."""
        return self._lease.info

    def stream(self, task: Task, *, release: bool = False) -> BridgedStream:
        """As ``Lease.stream``; the task starts when the first delta is asked for."""
        return BridgedStream(self._bridge, self._lease, task, release)

    def release(self) -> None:
        """Give the instance back. Idempotent."""
        self._bridge.run_soon(self._lease.release)


class BridgedEvents:
    """A subscription that lives on the owner loop and is read on another."""

    def __init__(self, bridge: Bridge, events: AsyncIterator[RouterEvent]) -> None:
        self._bridge = bridge
        self._events = events

    def __aiter__(self) -> BridgedEvents:
        return self

    async def __anext__(self) -> RouterEvent:
        event = await self._bridge.run(lambda: _next_or_none(self._events))
        if event is None:
            raise StopAsyncIteration
        return event
