"""The model source of those models that the option ``models`` takes from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_router_mw.hookspecs import hookimpl
from llm_router_mw.hub_reference import reference_of
from llm_router_mw.types import Model

if TYPE_CHECKING:
    from llm_router_mw.config import ModelEntry, RouterConfig
    from llm_router_mw.protocols import ModelSource


class HubSource:
    """Lists models of the hub as they were named; nothing is looked for, here or there.

    What stands for their paths (``hf://owner/name:QUANT``) is the same before and after they are
    downloaded, so it is one instance all the time.
    """

    name = "hub"

    def __init__(self, entries: Sequence[ModelEntry]) -> None:
        self._entries = tuple(entries)

    def models(self) -> Sequence[Model]:
        """Return a model per entry that names a repository."""
        return [self._model(entry) for entry in self._entries if reference_of(entry.path)]

    def _model(self, entry: ModelEntry) -> Model:
        return Model(
            id=entry.id,
            path=entry.path,
            source=self.name,
            aliases=entry.aliases,
            tags=entry.tags,
            options=entry.options,
            settings=entry.settings,
        )


@hookimpl
def llm_router_register_model_sources(config: RouterConfig) -> Sequence[ModelSource]:
    """Supply the models that lie, or will lie, in the hub's cache."""
    return [HubSource(config.models)]
