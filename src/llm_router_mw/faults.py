"""What plugins' objects did wrong while they worked: counted, and logged once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from threading import Lock

from llm_router_mw.errors import LLMRouterError

logger = logging.getLogger("llm_router_mw.plugins")


class Faults:
    """The failures of one router's plugins. Whoever calls a plugin's object tells it here.

    A failing object is asked again the next time: it may depend on something that comes back. Safe
    to be used by several threads: probes and estimators work in some.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, kind: str, name: str, error: Exception) -> None:
        """Note that the *kind* (``observer``) called *name* raised *error*."""
        title = f"{kind} {name!r}"
        with self._lock:
            self._counts[title] += 1
            is_first = self._counts[title] == 1
        # Once: one that fails at every call must not flood the log.
        if is_first:
            # Our own errors say by themselves what is wrong.
            traceback = None if isinstance(error, LLMRouterError) else error
            logger.error(
                "%s failed: %s; its further failures are counted only",
                title,
                str(error) or type(error).__name__,
                exc_info=traceback,
            )

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each object has failed, by its kind and name."""
        with self._lock:
            return dict(self._counts)
