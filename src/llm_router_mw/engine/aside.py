"""A second thread for prompts and schemas so large that running answers would notice."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

import msgspec

from llm_router_mw.types import Task

_HEAVY_BYTES = 16 * 1024
"""A smaller task is prepared in less time than it takes to hand it over and back."""

_encoder = msgspec.msgpack.Encoder()

Job = tuple[int, Callable[[], Any]]


def is_heavy(task: Task) -> bool:
    """Whether *task* should be prepared aside."""
    return len(_encoder.encode(task)) > _HEAVY_BYTES


class Aside:
    """Prepares tasks in a thread, one after the other, and tells *done* what came of each."""

    def __init__(self, done: Callable[[int, Any], None]) -> None:
        self._done = done
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="aside", daemon=True)
        self._thread.start()

    def put(self, request_id: int, work: Callable[[], Any]) -> None:
        """Have *work*, which must not raise, done for a request."""
        self._jobs.put((request_id, work))

    def close(self) -> None:
        """Finish what has begun; what it works with may be freed afterwards."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            request_id, work = job
            self._done(request_id, work())
