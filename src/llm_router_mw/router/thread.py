"""A router on an event loop of its own, for apps that have none to offer."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import ExitStack
from typing import TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from llm_router_mw.errors import RouterNotRunningError
from llm_router_mw.protocols import StartableRouter

T = TypeVar("T")


class RouterThread:
    """Runs a router in a thread: from the first ``start`` to ``stop`` or the interpreter's end."""

    def __init__(self, router: StartableRouter) -> None:
        self.router = router
        self._lock = threading.Lock()
        self._stack: ExitStack | None = None
        self._portal: BlockingPortal | None = None

    @property
    def portal(self) -> BlockingPortal:
        """The way into the router's loop; raises RouterNotRunningError before ``start``."""
        if self._portal is None:
            raise RouterNotRunningError("the router's thread has not been started")
        return self._portal

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
        """Start the thread and the router; return when it runs. Idempotent, from any thread."""
        with self._lock:
            if self._stack is not None:
                return
            with ExitStack() as stack:
                portal = stack.enter_context(start_blocking_portal(name="llm-router"))
                # Calls that are still under way when the router has closed wait for nothing.
                stack.callback(portal.call, portal.stop, True)
                stack.enter_context(portal.wrap_async_context_manager(self.router))
                atexit.register(self.stop)
                self._portal = portal
                self._stack = stack.pop_all()

    def stop(self) -> None:
        """Stop the router and its thread. Idempotent."""
        with self._lock:  # to the end: a new start must find the router closed
            stack, self._stack, self._portal = self._stack, None, None
            if stack is not None:
                atexit.unregister(self.stop)
                stack.close()
