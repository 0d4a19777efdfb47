"""Names of models as Ollama's clients write them."""

from __future__ import annotations

from collections.abc import Sequence

from llm_router_mw.types import Model

LATEST = ":latest"


class LatestResolver:
    """Understands ``name:latest``, which clients make of a name without a tag."""

    name = "ollama-latest"

    def resolve(self, requested: str, models: Sequence[Model]) -> str | None:
        """Return the name without its tag, if a model has that."""
        plain = requested.removesuffix(LATEST)
        if plain == requested:
            return None
        known = {name for model in models for name in (model.id, *model.aliases)}
        return plain if plain in known else None
