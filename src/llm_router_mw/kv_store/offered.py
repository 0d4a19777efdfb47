"""What living workers have been told that they may use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from llm_router_mw.protocols import InstanceHandle
from llm_router_mw.types import Snapshot


@dataclass(slots=True, eq=False)
class Worker:
    """What one worker was given."""

    handle: InstanceHandle
    snapshots: set[str] = field(default_factory=set)
    spares: set[str] = field(default_factory=set)
    is_awake: bool = False
    no_spares_before: float = 0.0
    """Unix time: one that could not be written is not followed by another at once."""


class Offered:
    """The workers of a router, and the files that they know of."""

    def __init__(self) -> None:
        self._workers: dict[int, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._workers.values()))

    def worker(self, handle: InstanceHandle) -> Worker:
        """Return what is known of the worker of *handle*."""
        return self._workers.setdefault(id(handle), Worker(handle))

    def get(self, handle: InstanceHandle) -> Worker | None:
        """Return what is known of the worker of *handle*; None if it is gone, or new."""
        return self._workers.get(id(handle))

    def forget(self, handle: InstanceHandle) -> Worker | None:
        """Return what was known of a worker that is gone."""
        return self._workers.pop(id(handle), None)

    def know(self, path: str, besides: InstanceHandle) -> bool:
        """Whether a worker but that of *besides* may be using *path*."""
        return any(path in worker.snapshots for worker in self if worker.handle is not besides)

    def withdraw(self, paths: Iterable[str]) -> None:
        """Let no worker use *paths* from now on."""
        gone = set(paths)
        for worker in self:
            known = gone & (worker.snapshots | worker.spares)
            if known:
                worker.handle.withdraw(sorted(known))
                worker.snapshots -= known
                worker.spares -= known

    def settle(self, worker: Worker, wanted: Iterable[Snapshot]) -> None:
        """Let *worker* know *wanted*, and no others."""
        by_path = {snapshot.path: snapshot for snapshot in wanted}
        needless = worker.snapshots - by_path.keys()
        if needless:
            worker.handle.withdraw(sorted(needless))
        new = [by_path[path] for path in by_path if path not in worker.snapshots]
        if new:
            worker.handle.offer(new)
        worker.snapshots = set(by_path)
