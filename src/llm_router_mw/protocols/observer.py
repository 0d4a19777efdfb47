"""Who is told what happens."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from llm_router_mw.types import RouterEvent


@runtime_checkable
class Observer(Protocol):
    """Is told what happens. Supplied by ``llm_router_register_observers``."""

    name: str

    def on_event(self, event: RouterEvent) -> None:
        """Take one event; called on the router's loop, so it must return at once."""
        ...
