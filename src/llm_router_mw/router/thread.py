"""A router on an event loop of its own, for apps that have none to offer."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from typing import TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.protocols import StartableRouter

T = TypeVar("T")


class _Run:
    """What one process has. A forked child has neither the thread nor whoever held the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stack: ExitStack | None = None
        self.portal: BlockingPortal | None = None


class RouterThread:
    """Runs a router in a thread: from the first ``start`` to ``stop`` or the interpreter's end.

    A process that was forked meanwhile has no part in that: there, the thread was not started.
    """

    def __init__(self, router: StartableRouter) -> None:
        self.router = router
        self._runs: dict[int, _Run] = {}

    @property
    def _run(self) -> _Run:
        # setdefault is atomic: of two first callers in a process both get the same.
        return self._runs.setdefault(os.getpid(), _Run())

    @property
    def portal(self) -> BlockingPortal:
        """The way into the router's loop; raises RouterNotRunningError before ``start``."""
        portal = self._run.portal
        if portal is None:
            raise RouterNotRunningError("the router's thread has not been started")
        return portal

    def call(self, call: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Return what *call* returns on the router's loop.

        Raises:
            RouterNotRunningError: the thread was stopped, before or meanwhile.
        """
        try:
            future = self.portal.start_task_soon(call, *arguments)
        except RuntimeError as error:
            # Stopped meanwhile; or the caller is on the loop itself, and would wait for ever.
            raise RouterNotRunningError(f"the router's thread takes no call: {error}") from error
        try:
            return future.result()
        except CancelledError as error:
            raise RouterNotRunningError("the router's thread was stopped meanwhile") from error
        finally:
            future.cancel()  # if an interrupt ended the waiting

    def start(self) -> None:
        """Start the thread and the router; return when it runs. Idempotent, from any thread.

        Raises:
            RouterNotRunningError: the router runs already, but not on this thread.
        """
        run = self._run
        with run.lock:
            if run.stack is not None:
                return
            if self.router.running:
                raise RouterNotRunningError(
                    "the router was started elsewhere, perhaps before this process was forked; "
                    "with a server that forks, pass the router's options instead of a router"
                )
            with ExitStack() as stack:
                portal = _start_loop(stack)
                # Calls that are still under way when the router has closed wait for nothing.
                stack.callback(portal.call, portal.stop, True)
                stack.enter_context(portal.wrap_async_context_manager(self.router))
                atexit.register(self.stop)
                run.portal = portal
                run.stack = stack.pop_all()

    def stop(self) -> None:
        """Stop the router and its thread, if this process started them. Idempotent."""
        run = self._run
        with run.lock:  # to the end: a new start must find the router closed
            stack, run.stack, run.portal = run.stack, None, None
            if stack is not None:
                atexit.unregister(self.stop)
                stack.close()


def _start_loop(stack: ExitStack) -> BlockingPortal:
    """Start a thread with an event loop and return the way in; *stack* then waits for its end.

    Not anyio's ``start_blocking_portal``: a forked child that drops such a generator would have it
    call the parent's thread, and wait for ever.
    """
    started: Future[BlockingPortal] = Future()
    thread = threading.Thread(target=_run_loop, args=(started,), name="llm-router", daemon=True)
    thread.start()
    stack.callback(thread.join)
    return started.result()


def _run_loop(started: Future[BlockingPortal]) -> None:
    async def live() -> None:
        async with BlockingPortal() as portal:
            started.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(live)
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)
