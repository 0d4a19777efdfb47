"""How much there is of memory, and who takes what: for the log and for observers."""

from __future__ import annotations

from typing import Any

from llm_router_mw.memory.ledger import Amounts, Ledger
from llm_router_mw.types import InstanceKey
from llm_router_mw.units import MIB


def in_words(ledger: Ledger, amounts: Amounts) -> str:
    """Return how much of which memory pools *amounts* are; empty if that is nothing."""
    parts = [
        f"{amount / MIB:.0f} MiB of {resource}"
        for resource, amount in amounts.items()
        if amount > 0 and ledger.reading(resource) is not None
    ]
    return " and ".join(parts)


def arithmetic(ledger: Ledger, instance: InstanceKey) -> dict[str, Any]:
    """Return by pool what a load of *instance*, which is charged already, needs and leaves."""
    pools: dict[str, Any] = {}
    rooms = ledger.rooms()
    for resource, needed in ledger.charge_of(instance).items():
        reading = ledger.reading(resource)
        if reading is not None:
            pools[resource] = {
                "needed_bytes": needed,
                "left_bytes": rooms.get(resource, ledger.room(resource)),
                "others_bytes": reading.others_bytes,
                "margin_bytes": reading.margin_bytes,
            }
    return {"memory": pools} if pools else {}
