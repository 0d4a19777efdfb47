"""A second thread for what running answers would notice: large prompts, schemas and files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Condition, Thread
from typing import Any

import msgspec

from llm_router_mw.types import Task

_HEAVY_BYTES = 16 * 1024
"""A smaller task is prepared in less time than it takes to hand it over and back."""

_encoder = msgspec.msgpack.Encoder()


def is_heavy(task: Task) -> bool:
    """Whether *task* should be prepared aside."""
    return len(_encoder.encode(task)) > _HEAVY_BYTES


class Aside:
    """Prepares tasks in a thread, one after the other, and tells *done* what came of each."""

    def __init__(self, done: Callable[[int, Any], None]) -> None:
        self._done = done
        self._jobs: OrderedDict[int, Callable[[], Any]] = OrderedDict()
        """Those that have not begun, by request."""
        self._closed = False
        self._changed = Condition()
        """Guards both."""
        self._thread = Thread(target=self._run, name="aside", daemon=True)
        self._thread.start()

    def put(self, request_id: int, work: Callable[[], Any]) -> None:
        """Have *work*, which must not raise, done for a request."""
        with self._changed:
            self._jobs[request_id] = work
            self._changed.notify()

    def drop(self, request_id: int) -> bool:
        """Forget the work for a request; return False if it has begun, and *done* will be told."""
        with self._changed:
            return self._jobs.pop(request_id, None) is not None

    def close(self) -> None:
        """Finish what has begun, and nothing else; what it works with may be freed afterwards."""
        with self._changed:
            self._closed = True
            self._jobs.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                request_id, work = self._jobs.popitem(last=False)
            self._done(request_id, work())
