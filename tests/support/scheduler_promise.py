"""What a promise is, and the questions that several of them ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceKey, InstanceState, Price
from tests.support.scheduler_book import Book
from tests.support.scheduler_records import Lowered, Step, Violation, Worker

ON_ITS_WAY = frozenset({InstanceState.LOADING, InstanceState.LOADED, InstanceState.WAKING})


@dataclass(frozen=True, slots=True)
class Promise:
    """A name, and a function that raises :class:`Violation` if a step breaks it."""

    name: str
    says: str
    check: Callable[[Book, Step], None]


PROMISES: dict[str, Promise] = {}


def promise(check: Callable[[Book, Step], Iterable[str] | None]) -> None:
    """Register *check*, which yields what is wrong."""
    name = check.__name__.strip("_").replace("_", " ")

    def run(book: Book, step: Step) -> None:
        for wrong in check(book, step) or ():
            raise Violation(name, wrong)

    PROMISES[name] = Promise(name, check.__doc__ or "", run)


def is_victim(step: Step, lowered: Lowered) -> bool:
    return lowered.key in step.announced_as("evicted")


def drained(step: Step) -> list[InstanceKey]:
    """Return what began to drain in this step, other than by hand."""
    by_hand = (
        step.event.instance if isinstance(step.event, events.Unload | events.PutToSleep) else None
    )
    return [
        each.instance
        for each in step.announced
        if each.state is InstanceState.DRAINING
        and step.before.get(each.instance) is not InstanceState.DRAINING
        and each.instance != by_hand
    ]


def idle_due(book: Book, key: InstanceKey, worker: Worker, *, phase: str | None = None) -> float:
    """Return when an instance that nobody uses is to go down a step."""
    kept = book.keep_until.get(key)
    if kept:
        return max(kept.values())
    terms = book.agreed(key)
    limits = [terms.unload_idle_seconds]
    if (phase or worker.phase) == "ready":
        limits.append(terms.sleep_idle_seconds)
    return min((worker.idle_since + limit for limit in limits if limit >= 0), default=float("inf"))


def had_trouble(book: Book, key: InstanceKey) -> bool:
    trouble = book.trouble.get(key)
    return trouble is not None and trouble.second_chance


def cools_down(book: Book, key: InstanceKey) -> bool:
    trouble = book.trouble.get(key)
    return trouble is not None and book.now < trouble.until


def fits_alone(book: Book, key: InstanceKey) -> bool:
    """Whether *key* would fit if nothing else ran on the machine."""
    prices: tuple[Price, ...] = book.prices.get(key, ())
    return not prices or any(_fits(price.bytes_by_pool, book) for price in prices)


def may_fit_together(book: Book, keys: Iterable[InstanceKey], *, at_most: bool) -> bool:
    """Whether all of *keys* could be resident if nothing else ran on the machine.

    Of what a worker is charged with little is known: with *at_most*, it is taken to be the most.
    """
    ways: list[list[Mapping[str, int]]] = []
    for key in keys:
        prices: tuple[Price, ...] = book.prices.get(key, ())
        ways.append([price.bytes_by_pool for price in prices] or [{}])
        if (worker := book.workers.get(key)) is not None:
            ways[-1].append(worker.high if at_most else worker.low)
    return any(
        _fits({pool: sum(each.get(pool, 0) for each in sizes) for pool in book.pools}, book)
        for sizes in product(*ways)
    )


def _fits(sizes: Mapping[str, int], book: Book) -> bool:
    return all(
        pool not in book.pools or size <= book.pools[pool].most_bytes
        for pool, size in sizes.items()
    )
