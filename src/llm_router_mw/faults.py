"""What plugins' objects did wrong while they worked: counted, and logged once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

logger = logging.getLogger("llm_router_mw.plugins")


class Faults:
    """The failures of one router's plugins. Whoever calls a plugin's object tells it here.

    A failing object is asked again the next time: it may depend on something that comes back.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, name: str, error: Exception) -> None:
        """Note that the *kind* (``observer``) called *name* raised *error*."""
        title = f"{kind} {name!r}"
        self._counts[title] += 1
        # Once: one that fails at every call must not flood the log.
        if self._counts[title] == 1:
            logger.error(
                "%s failed: %s; its further failures are counted only", title, error, exc_info=error
            )

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each object has failed, by its kind and name."""
        return dict(self._counts)
