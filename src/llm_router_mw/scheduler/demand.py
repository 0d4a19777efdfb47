"""What an instance takes of each resource: as a whole, by placement, and what each step frees."""

from __future__ import annotations

from collections.abc import Mapping

from llm_router_mw.memory.ledger import Amounts, Ledger
from llm_router_mw.protocols import Candidate
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.states import SLEEPING
from llm_router_mw.scheduler.terms import Terms
from llm_router_mw.types import Price, Step

SLOTS = "slots"
"""Of ``models_max``: taken by what loads, is loaded, wakes, or has not gone yet."""
WORKERS = "workers"
"""Of ``workers_max``: sleepers take one too."""
_GROUP = "group "
"""How the name of a group's resource begins."""


def group_resource(group: str) -> str:
    """Return the name of the resource of which an exclusive group has one."""
    return f"{_GROUP}{group}"


def demand(price: Price | None, terms: Terms, surcharge: float = 1.0) -> dict[str, int]:
    """Return what an instance takes that is awake at *price*."""
    amounts = {SLOTS: 1, WORKERS: 1}
    for group in terms.exclusive_groups:
        amounts[group_resource(group)] = 1
    if price is not None:
        for pool, size in price.bytes_by_pool.items():
            if size > 0:  # who needs nothing of a pool does not care that others took too much
                amounts[pool] = int(size * surcharge)
    return amounts


def needs_of(
    instance: Instance, price: Price | None, terms: Terms, ledger: Ledger
) -> dict[str, int]:
    """Return what *instance* is to be charged with at *price* on *terms*."""
    needs = demand(price, terms, instance.surcharge)
    if instance.surcharge == 1.0:
        return needs
    # A second try may ask for more than there is: then it is made with all that there is.
    exact = demand(price, terms)
    return {
        resource: max(exact[resource], min(amount, ledger.capacity(resource)))
        for resource, amount in needs.items()
    }


def regrouped(charge: Amounts, terms: Terms) -> dict[str, int]:
    """Return *charge* with the exclusive groups that *terms* name, and no others."""
    groups = {group_resource(group): 1 for group in terms.exclusive_groups}
    others = {name: n for name, n in charge.items() if not name.startswith(_GROUP)}
    return others | groups


def asleep(charge: Amounts, measured: Mapping[str, int]) -> dict[str, int]:
    """Return what an instance takes that sleeps, of what it took before."""
    return {resource: 1 for resource in charge if resource == WORKERS} | {
        pool: size for pool, size in measured.items() if size > 0
    }


def residue(price: Price | None, level: Step) -> dict[str, int]:
    """Return by pool what an instance at *price* is expected to hold at *level*."""
    if price is None or level == "stop":
        return {}
    left = dict(price.bytes_by_pool)
    _subtract(left, price.context_bytes_by_pool)
    if level == "full":
        _subtract(left, price.weights_bytes_by_pool)
    return left


def candidate(instance: Instance, charge: Amounts, step: Step) -> Candidate:
    """Return the picture of *instance* going down to *step*, or further if it is there already."""
    if instance.state is SLEEPING:
        step = "stop"  # there is no other way down for it
    left = {} if step == "stop" else asleep(charge, residue(instance.price, step))
    freed = {
        resource: amount - left.get(resource, 0)
        for resource, amount in charge.items()
        if amount > left.get(resource, 0)
    }
    return Candidate(
        instance=instance.key,
        step=step,
        models=tuple(sorted(instance.models)),
        freed=freed,
        last_used_seconds=instance.last_used_seconds,
        loaded_at_seconds=instance.loaded_at_seconds,
        load_seconds=instance.load_seconds,
        uses=instance.uses,
        heat=instance.heat,
    )


def _subtract(amounts: dict[str, int], less: Mapping[str, int]) -> None:
    for pool, size in less.items():
        amounts[pool] = max(0, amounts.get(pool, 0) - size)
