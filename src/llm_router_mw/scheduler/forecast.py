"""Where a request stands in the queue, and how long it will probably wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_router_mw.scheduler.instance import Instance
from llm_router_mw.scheduler.queue import Queue, Ticket
from llm_router_mw.scheduler.residents import Residents
from llm_router_mw.scheduler.states import LOADED, ON_ITS_WAY
from llm_router_mw.types import InstanceKey, QueuePlace

_BYTES_PER_SECOND = 1e9
"""How fast a model loads that has never been loaded here."""
_LOAD_SECONDS = 2.0
"""How long one loads whose size is unknown too."""


def request_place(queue: Queue, residents: Residents, request_id: int) -> QueuePlace | None:
    """Return the place of a request: 1 is the next; None if it does not wait.

    The wait is that for the loads of those before it, one after the other, and its own. How long
    the answers of others take, nobody knows.
    """
    found = queue.request(request_id)
    return None if found is None else _place(queue, residents, found[1])


def instance_place(queue: Queue, residents: Residents, key: InstanceKey) -> QueuePlace | None:
    """Return the best place of those who wait for an instance; None if nobody does."""
    places = [_place(queue, residents, ticket) for ticket in queue.of(key)]
    return min(places, key=lambda place: place.position, default=None)


def next_place(queue: Queue, residents: Residents, instance: Instance) -> QueuePlace:
    """Return the place that one more request for *instance* would have."""
    shared = instance_place(queue, residents, instance.key)
    if shared is not None:
        return shared
    return _behind(queue, [instance], residents)


def _place(queue: Queue, residents: Residents, ticket: Ticket) -> QueuePlace:
    return _behind(queue.ahead_of(ticket), _wanted(ticket, residents), residents)


def _behind(
    tickets: Iterable[Ticket], wanted: Sequence[Instance], residents: Residents
) -> QueuePlace:
    """Return the place of somebody who wants *wanted*, with *tickets* before him."""
    all_before = (_wanted(ticket, residents) for ticket in tickets)
    before = [each for each in all_before if any(one.state not in ON_ITS_WAY for one in each)]
    needed = [instance for each in (*before, wanted) for instance in each]
    seconds = None
    if not any(instance.is_missing for instance in needed):  # nobody knows how long that takes
        seconds = sum(map(_load_seconds, needed))
    return QueuePlace(position=len(before) + 1, expected_wait_seconds=seconds)


def _wanted(ticket: Ticket, residents: Residents) -> list[Instance]:
    return [residents.known(key) for key in ticket.instances]


def _load_seconds(instance: Instance) -> float:
    if instance.state is LOADED:
        return 0.0
    if instance.load_seconds:
        return instance.load_seconds
    if instance.prices:
        return sum(instance.prices[0].bytes_by_pool.values()) / _BYTES_PER_SECOND
    return _LOAD_SECONDS
