"""Who knows what is meant by a name that no model has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from llm_router_mw.types import Model


@runtime_checkable
class ModelResolver(Protocol):
    """Finds the model that a request means. Supplied by ``llm_router_register_model_resolvers``."""

    name: str

    def resolve(self, requested: str, models: Sequence[Model]) -> str | None:
        """Return the id or alias of one of *models*; None if this one does not know either.

        Asked only for names that no model has. Called on the request's way: it must be quick.
        """
        ...
