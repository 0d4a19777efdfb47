"""How much room there is in a world, for the checks: memory, slots, workers and groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceKey, InstanceState, Price
from tests.support.scheduler_book import Book
from tests.support.scheduler_records import Admitted, Asked, Phase, Step, Worker

_AHEAD = frozenset({InstanceState.LOADING, InstanceState.LOADED, InstanceState.WAKING})
_WITHOUT_LIMIT = 10**9


class Room:
    """What is left of everything; it may be taken and given back."""

    def __init__(self, book: Book, *, at_most: bool, but_leaving_are_gone: bool = False) -> None:
        self._book = book
        self.left: Counter[str] = Counter(book.capacities())
        self.left["slots"] = book.limits.models_max or _WITHOUT_LIMIT
        self.left["workers"] = book.limits.workers_max or _WITHOUT_LIMIT
        for key, worker in book.workers.items():
            if not but_leaving_are_gone or worker.phase != "stopping":
                self._add(key, worker, worker.low if at_most else worker.high, -1, worker.phase)

    @classmethod
    def as_admitted(cls, book: Book, admitted: Admitted) -> Room:
        """Return the room that there was for one that has been admitted: the least of it."""
        room = cls(book, at_most=False)
        room._add(admitted.key, admitted.worker, admitted.worker.high, 1, "loading")
        return room

    @property
    def is_oversold(self) -> bool:
        return any(amount < 0 for amount in self.left.values())

    def copy(self) -> Room:
        room = Room.__new__(Room)
        room._book, room.left = self._book, Counter(self.left)
        return room

    def take(self, needs: Mapping[str, int]) -> None:
        for resource, amount in needs.items():
            if resource in self.left or resource.startswith("group"):
                self._limit(resource)
                self.left[resource] -= amount

    def take_worker(self, key: InstanceKey, worker: Worker, *, was: Phase) -> None:
        """Take the room of a worker as it was before it was told to go."""
        self._add(key, worker, worker.high, -1, was)

    def give_back(self, key: InstanceKey, worker: Worker, *, high: bool = False) -> None:
        """Give back what a worker has, as if it were gone."""
        self._add(key, worker, worker.high if high else worker.low, 1, worker.phase)

    def fits(self, key: InstanceKey, price: Price | None) -> bool:
        """Whether *key* could be admitted at *price*."""
        needs = _needs(self._book, key, [] if price is None else [price.bytes_by_pool])
        for resource, amount in needs.items():
            if resource.startswith("group"):
                self._limit(resource)
            if resource in self.left and amount > self.left[resource]:
                return False
        return True

    def _add(
        self, key: InstanceKey, worker: Worker, sizes: Mapping[str, int], sign: int, phase: Phase
    ) -> None:
        for pool, size in sizes.items():
            if pool in self.left:
                self.left[pool] += sign * size
        self.left["workers"] += sign
        if phase != "asleep" and not worker.is_lowered:
            self.left["slots"] += sign
            for group in self._book.agreed(key).exclusive_groups:
                self._limit(f"group {group}")
                self.left[f"group {group}"] += sign

    def _limit(self, group: str) -> None:
        if group not in self.left:
            self.left[group] = 1


def needs_of(book: Book, key: InstanceKey) -> dict[str, int]:
    """Return the most that *key* may take, wherever it is put."""
    return _needs(book, key, [price.bytes_by_pool for price in book.prices.get(key, ())])


def _needs(book: Book, key: InstanceKey, sizes: Iterable[Mapping[str, int]]) -> dict[str, int]:
    needs: dict[str, int] = {}
    for each in sizes:
        for pool, size in each.items():
            needs[pool] = max(needs.get(pool, 0), size)
    tried = book.trouble.get(key)
    if tried is not None and tried.second_chance:
        needs = {pool: size * 5 // 4 + 1 for pool, size in needs.items()}
    needs["slots"] = needs["workers"] = 1
    names = {name for asked in book.wants(key) for wanted, name in asked.named if wanted == key}
    for name in names | book.attached.get(key, set()):
        if name in book.terms:
            for group in book.terms[name].exclusive_groups:
                needs[f"group {group}"] = 1
    return needs


def stuck(book: Book) -> dict[InstanceKey, None]:
    """Return what is waited for, is not on its way, and could be; in the order of the requests."""
    return {
        key: None
        for asked in book.requests.values()
        for key in asked.wanted
        if book.state(key) not in _AHEAD and key not in book.missing
    }


def ranking(book: Book, asked: Iterable[Asked]) -> tuple[int, int, float]:
    """Return the turn of the requests that want one instance: the lower goes first."""
    since = min(each.since for each in asked)
    if book.now >= since + book.limits.max_wait_seconds:
        return (0, 0, since)
    return (1, -max(each.priority for each in asked), since)


def can_be_freed(book: Book, step: Step, key: InstanceKey, worker: Worker) -> bool:
    """Whether an instance can surely be sent away now for one that waits, with its company."""
    return all(_can_go(book, step, each, book.workers[each]) for each in (key, *book.company(key)))


def _can_go(book: Book, step: Step, key: InstanceKey, worker: Worker) -> bool:
    if book.agreed(key).pinned or book.wants(key):
        return False
    if worker.phase == "asleep":
        return True
    is_idle = worker.phase == "ready" and not worker.leases
    was_there = step.before.get(key) is InstanceState.LOADED
    settled = step.now >= worker.ready_at + book.limits.min_resident_seconds
    by_hand = isinstance(step.event, events.Unload | events.PutToSleep)
    return is_idle and was_there and settled and not by_hand
