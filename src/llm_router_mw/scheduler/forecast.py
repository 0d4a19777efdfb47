"""Where a request stands in the queue, and how long it will probably wait."""

from __future__ import annotations

from llm_router_mw.scheduler.instance import ON_ITS_WAY, Instance
from llm_router_mw.scheduler.queue import Queue, Ticket
from llm_router_mw.scheduler.residents import Residents
from llm_router_mw.types import InstanceKey, InstanceState, QueuePlace

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


def _place(queue: Queue, residents: Residents, ticket: Ticket) -> QueuePlace:
    before = [each for each in queue.ahead_of(ticket) if not _is_on_its_way(each, residents)]
    first = (*before, ticket)
    seconds = None
    if not any(_is_missing(each, residents) for each in first):
        seconds = sum(_seconds(each, residents) for each in first)
    return QueuePlace(position=len(before) + 1, expected_wait_seconds=seconds)


def _is_missing(ticket: Ticket, residents: Residents) -> bool:
    """Tell whether something has to be downloaded first: nobody knows how long that takes."""
    return any(residents.known(key).is_missing for key in ticket.instances)


def _is_on_its_way(ticket: Ticket, residents: Residents) -> bool:
    return all(residents.known(key).state in ON_ITS_WAY for key in ticket.instances)


def _seconds(ticket: Ticket, residents: Residents) -> float:
    wanted = (residents.known(key) for key in ticket.instances)
    return sum(_load_seconds(each) for each in wanted if each.state is not InstanceState.LOADED)


def _load_seconds(instance: Instance) -> float:
    if instance.load_seconds:
        return instance.load_seconds
    if instance.prices:
        return sum(instance.prices[0].bytes_by_pool.values()) / _BYTES_PER_SECOND
    return _LOAD_SECONDS
