"""Who drains for whom."""

from __future__ import annotations

from collections.abc import KeysView

from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.states import DRAINING
from llm_router_mw.types import InstanceKey


class Drains:
    """Those that drain for a ticket; whoever drains because somebody asked by hand is not here."""

    def __init__(self) -> None:
        self._by_ticket: dict[int, dict[InstanceKey, Instance]] = {}

    @property
    def tickets(self) -> KeysView[int]:
        """The ids of the tickets for which instances drain."""
        return self._by_ticket.keys()

    def set(self, instance: Instance, ticket: int | None) -> None:
        """Let *instance* drain for *ticket*, and for nobody else; None is for nobody at all."""
        if instance.drains_for is not None:
            others = self._by_ticket[instance.drains_for]
            del others[instance.key]
            if not others:
                del self._by_ticket[instance.drains_for]
        instance.drains_for = ticket
        if ticket is not None:
            self._by_ticket.setdefault(ticket, {})[instance.key] = instance

    def end(self, ticket: int) -> list[Instance]:
        """Take note that *ticket* needs nobody gone; return the instances that drain for it."""
        drained = self._by_ticket.pop(ticket, None)
        if drained is None:  # as is usual
            return []
        for instance in drained.values():
            instance.drains_for = None
        return [each for each in drained.values() if each.state is DRAINING]
