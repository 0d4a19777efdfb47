"""Models that were named one by one in the options."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from llm_router_mw.catalog.paths import canonical
from llm_router_mw.config import ModelEntry
from llm_router_mw.hub_reference import reference_of
from llm_router_mw.types import Model

_log = logging.getLogger("llm_router_mw.catalog")


class NamedSource:
    """Supplies the option ``models``. Relative paths begin at the working directory."""

    name = "config"

    def __init__(self, entries: Sequence[ModelEntry]) -> None:
        self._entries = tuple(entries)

    def models(self) -> Sequence[Model]:
        """Return a model per entry; a missing file is only warned about, as it may come yet.

        Models of the hub are left to others.
        """
        return [self._model(entry) for entry in self._entries if not reference_of(entry.path)]

    def _model(self, entry: ModelEntry) -> Model:
        path = canonical(entry.path)
        if not os.path.exists(path):
            _log.warning("model %r: there is no file %s; requests for it will fail", entry.id, path)
        return Model(
            id=entry.id,
            path=path,
            source=self.name,
            aliases=entry.aliases,
            tags=entry.tags,
            options=entry.options,
            settings=entry.settings,
        )
