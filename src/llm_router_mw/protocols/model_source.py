"""Where models come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from llm_router_mw.types import Model


@runtime_checkable
class ModelSource(Protocol):
    """Finds models. Supplied by ``llm_router_register_model_sources``."""

    name: str

    def models(self) -> Sequence[Model]:
        """Return the models that exist now. May read directories; called off the event loop."""
        ...
