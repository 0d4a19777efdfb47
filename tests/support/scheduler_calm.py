"""What happens when the world behaves from now on: everybody who waits gets an answer in time."""

from __future__ import annotations

from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceKey
from tests.support.scheduler_records import Violation, Worker
from tests.support.scheduler_room import stuck
from tests.support.scheduler_world import RandomWorld

LOAD_SECONDS = 4.0
EXIT_SECONDS = 1.0
LEASE_SECONDS = 6.0
PRICE_SECONDS = 0.5
DOWNLOAD_SECONDS = 3.0
_FOR_EVER = 1e9
_LONGEST_ROUND = PRICE_SECONDS + LEASE_SECONDS + 2 * EXIT_SECONDS + 2 * LOAD_SECONDS
"""Of one instance after another: a drain, an exit, a failed try, and a load."""


def settle(world: RandomWorld, *, crowd: bool = False) -> None:
    """Let everything that is under way end well, until nobody waits any more.

    With *crowd*, for each model that is loaded there is always somebody who wants it again: they
    must not keep others waiting.

    Raises:
        Violation: somebody has waited for longer than they should.
    """
    book = world.book
    free_since = dict.fromkeys(book.requests, book.now)
    """Since when nothing blocks a request that the scheduler can do nothing about."""
    rounds = len(stuck(book)) + len(book.workers) + len(world.remote) + 1
    allowed = book.limits.max_wait_seconds + book.limits.min_resident_seconds
    allowed += rounds * _LONGEST_ROUND
    work = _Work(world)
    while left := free_since.keys() & book.requests:
        if crowd:
            _come_back(world)
        blocked = {request for request in left if _is_blocked(world, request)}
        free_since.update(dict.fromkeys(blocked, book.now))
        bound = min((free_since[each] + allowed for each in left - blocked), default=_FOR_EVER)
        if not work.advance(bound):
            late = min(left - blocked or left, key=lambda request: free_since[request])
            raise Violation(
                "everybody is answered in time",
                f"request {late} still waits at {book.now}, {book.now - free_since[late]:g} s "
                "after all others began to behave",
            )


def finish(world: RandomWorld) -> None:
    """Close the router, and let every worker end."""
    world.feed(events.Shutdown())
    for key, worker in list(world.book.workers.items()):
        world.exit(key, worker)
    for holder in list(world.book.holdings):
        world.feed(events.Held(holder=holder, bytes_by_pool={}))
    if world.book.workers or world.book.downloads:
        raise Violation("nothing happens after the end", "something was started, or goes on")
    for pool in world.setup.pools:
        left = world.book.scheduler.ledger.charged(pool)
        if left:
            raise Violation("the ledger agrees", f"{left} of {pool} is charged to nobody")


class _Work:
    """What is under way, and when each of it is done."""

    def __init__(self, world: RandomWorld) -> None:
        self._world = world
        self._due: dict[object, float] = {}

    def advance(self, bound: float) -> bool:
        """Go to the next thing that is done; False if nothing is, before *bound*."""
        book = self._world.book
        now = book.now
        running: dict[object, float] = {}
        for price in book.price_wanted:
            running["price", price] = PRICE_SECONDS
        for key, generation in book.downloads.items():
            running["download", key, generation] = DOWNLOAD_SECONDS
        for key, worker in book.workers.items():
            if worker.phase in ("loading", "waking"):
                running["load", key, worker.generation] = LOAD_SECONDS
            elif worker.phase == "stopping":
                running["exit", key, worker.generation] = EXIT_SECONDS
            elif worker.phase == "falling_asleep":
                running["sleep", key, worker.generation] = EXIT_SECONDS
        for lease in book.leases:
            running["lease", lease] = LEASE_SECONDS
        self._due = {
            thing: self._due.get(thing, now + seconds) for thing, seconds in running.items()
        }
        first = min(self._due, key=lambda thing: self._due[thing], default=None)
        timer = book.timer
        at = min(
            self._due[first] if first is not None else float("inf"),
            timer if timer is not None else float("inf"),
        )
        if at > bound:
            return False
        if first is None or (timer is not None and timer < self._due[first]):
            self._world.pass_time(max(0.0, at - now))
            return True
        self._world.pass_time(max(0.0, at - now))
        self._done(first)
        return True

    def _done(self, thing: object) -> None:
        world, book = self._world, self._world.book
        match thing:
            case ("price", InstanceKey() as key):
                if key in book.price_wanted:
                    world.answer_price(key)
            case ("lease", int(lease)):
                if lease in book.leases:
                    world.feed(events.Released(lease))
            case ("download", InstanceKey() as key, int(generation)):
                if book.downloads.get(key) == generation:
                    world.finish_download(key)
            case (str(what), InstanceKey() as key, int(generation)):
                worker = book.workers.get(key)
                if worker is not None and worker.generation == generation:
                    self._end(what, key, worker)

    def _end(self, what: str, key: InstanceKey, worker: Worker) -> None:
        if what == "load" and worker.phase in ("loading", "waking"):
            self._world.finish_load(key, worker, None)
        elif what == "exit" and worker.phase == "stopping":
            self._world.exit(key, worker)
        elif what == "sleep" and worker.phase == "falling_asleep":
            self._world.fall_asleep(key, worker, None)


def _come_back(world: RandomWorld) -> None:
    """Let each loaded model that is not asked for be asked for."""
    book = world.book
    for kind in world.setup.models:
        worker = book.workers.get(kind.key)
        wanted = any(kind.key in asked.keys for asked in book.requests.values())
        if worker is not None and worker.phase == "ready" and not wanted and not worker.leases:
            world.request([kind], priority=0)


def _is_blocked(world: RandomWorld, request: int) -> bool:
    """Whether what is pinned, or what others have taken, may keep a request waiting."""
    book = world.book
    asked = book.requests[request]
    pinned = any(book.agreed(key).pinned for key in book.workers)
    several = len(asked.wanted) > 1
    capacities = book.capacities()
    short = any(
        all(
            any(
                size > capacities[pool]
                for pool, size in price.bytes_by_pool.items()
                if pool in capacities
            )
            for price in book.prices.get(key, ())
        )
        for key in asked.wanted
        if book.prices.get(key)
    )
    return pinned or several or short
