"""Several instances at the same time: refused at once if they can never be resident together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, product

from llm_router_mw.errors import InvalidRequestError, LLMRouterError, ModelTooLargeError
from llm_router_mw.memory.ledger import Amounts, Ledger
from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.limits import Limits
from llm_router_mw.scheduler.shortage import Shortage, by_device, in_words, lacking, total
from llm_router_mw.scheduler.terms import Terms

_MOST_WAYS = 4096
"""Ways to place them that are looked at; whoever has more is taken to fit."""


def too_many(wanted: Sequence[Instance], limits: Limits) -> LLMRouterError | None:
    """Refuse to hold more instances at once than there can be."""
    count = len({instance.key for instance in wanted})
    for name, most in (("models_max", limits.models_max), ("workers_max", limits.workers_max)):
        if 0 < most < count:
            return InvalidRequestError(
                f"{count} models cannot be held at once: {name} is {most}; ask for fewer or raise "
                f"{name}",
                param="model",
            )
    return None


def exclude_each_other(wanted: Sequence[Instance], terms: Sequence[Terms]) -> LLMRouterError | None:
    """Refuse members of one exclusive group; *terms* are those of the models asked for."""
    members = {
        (group, instance.key)
        for instance, said in zip(wanted, terms, strict=True)
        for group in said.exclusive_groups
    }
    for group, count in Counter(group for group, _ in members).items():
        if count > 1:
            return InvalidRequestError(
                f"{count} models of the group {group!r} cannot be held at once: only one of its "
                "members is resident at a time; ask for them one after the other",
                param="model",
            )
    return None


def too_large_together(
    wanted: Sequence[Instance], models: str, ledger: Ledger
) -> LLMRouterError | None:
    """Refuse what would not fit all at once if nothing else ran on the machine.

    *models* is how the error names them. Those of whom nobody knows what they need take nothing.
    """
    ways = [list(_ways(instance, ledger)) for instance in dict.fromkeys(wanted)]
    all_short: list[Shortage] = []
    for needs in islice(product(*ways), _MOST_WAYS + 1):
        short = lacking(_sum(needs), ledger.most)
        if not short or len(all_short) == _MOST_WAYS:
            return None
        all_short.append(short)
    least = min(all_short, key=total)
    return ModelTooLargeError(
        f"models {models} can never fit together: {in_words(least)} that there are beside the "
        "margin; use them one after the other, or smaller models, contexts or a smaller margin",
        devices=by_device(least),
    )


def _ways(instance: Instance, ledger: Ledger) -> Iterator[Amounts]:
    """Yield what *instance* may come to take of memory: as it is, and in each place."""
    if instance.has_worker:
        charge = ledger.charge_of(instance.key)
        yield {name: n for name, n in charge.items() if ledger.reading(name) is not None}
    for price in instance.prices or ():
        yield price.bytes_by_pool
    if not instance.prices:
        yield {}


def _sum(amounts: Sequence[Amounts]) -> Amounts:
    summed: Counter[str] = Counter()
    for each in amounts:
        summed.update(each)
    return summed
