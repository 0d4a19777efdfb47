"""Ending a step in the middle, once nobody waits for its result any more."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llm_router_mw.engine.native import llama, log


class StepAbort:
    """Knows which requests the present step works for; told from another thread who has left.

    llama.cpp can only give up a whole step, for all of its requests. So that is done when the last
    of them has been cancelled, and not before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working_for: set[int] | None = None
        # llama.cpp asks after each node of the graph whether to go on. A Python function would
        # need the interpreter lock each time; the C library's strlen does not: it is 0 (false) as
        # long as this string is empty.
        self._flag = ctypes.create_string_buffer(2)

    def install(self, context: Any) -> None:
        """Make *context* ask here."""
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, llama.ggml_abort_callback)
        llama.llama_set_abort_callback(context, strlen, ctypes.cast(self._flag, ctypes.c_void_p))

    @contextmanager
    def step(self, requests: set[int]) -> Iterator[None]:
        """Work for *requests*."""
        with self._lock:
            self._working_for = requests
            self._give_up(False)
        try:
            yield
        finally:
            with self._lock:
                self._working_for = None
                log.muted = False

    def leave(self, request: int) -> None:
        """*request* has been cancelled; called from any thread."""
        with self._lock:
            if self._working_for is not None:
                self._working_for.discard(request)
                self._give_up(not self._working_for)

    def leave_all(self) -> None:
        """All requests have been cancelled; called from any thread."""
        with self._lock:
            if self._working_for is not None:
                self._give_up(True)

    def _give_up(self, give_up: bool) -> None:
        self._flag[0] = b"\1" if give_up else b"\0"
        log.muted = give_up  # llama.cpp would call it an error
