"""How long a request waits for its model, and what its client is told of that meanwhile."""

from __future__ import annotations

from math import ceil
from time import monotonic

from llm_router_mw.api.connection import Connection
from llm_router_mw.api.demand import Demand
from llm_router_mw.errors import LLMRouterError
from llm_router_mw.protocols import LeaseContract, RouterContract
from llm_router_mw.types import QueuePlace

POSITION_HEADER = b"x-llm-router-queue-position"
EXPECTED_HEADER = b"x-llm-router-expected-wait"
WAITED_HEADER = b"x-llm-router-waited"


class Waiting:
    """The wait of one request.

    Every answer on its *connection* tells of it in its headers, unless it was served at once.
    """

    def __init__(self, connection: Connection, demand: Demand) -> None:
        self._demand = demand
        self._began = monotonic()
        self._granted: float | None = None
        self._queued_at: float | None = None
        self._place: QueuePlace | None = None
        connection.more_headers = self.headers

    async def lease(self, router: RouterContract) -> LeaseContract:
        """Wait for the lease that is demanded of *router*.

        Raises:
            LLMRouterError: the model cannot be had.
        """
        try:
            lease = await self._demand.lease(router, self._moved)
        except LLMRouterError as error:
            if self._place is None and "position" in error.fields:
                # Refused at once: the place that it would have had.
                expected = error.fields.get("expected_wait_seconds")
                self._moved(
                    QueuePlace(position=error.fields["position"], expected_wait_seconds=expected)
                )
            raise
        self._place = None
        self._granted = monotonic()
        return lease

    def _moved(self, place: QueuePlace) -> None:
        # Perhaps in the router's thread: whoever sends comments looks here now and then.
        self._place = place
        if self._queued_at is None:
            self._queued_at = monotonic()

    @property
    def queued_at(self) -> float | None:
        """When the request began to wait; None if it does not, or no longer."""
        return None if self._place is None else self._queued_at

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what an answer tells that is sent now."""
        if self._queued_at is None:
            return []
        until = monotonic() if self._granted is None else self._granted
        found = [(WAITED_HEADER, b"%.3f" % (until - self._began))]
        place = self._place
        if place is not None:
            found.append((POSITION_HEADER, b"%d" % place.position))
            if place.expected_wait_seconds is not None:
                found.append((EXPECTED_HEADER, b"%d" % ceil(place.expected_wait_seconds)))
        return found

    def comment(self) -> bytes:
        """Return an SSE comment that says how things stand; an empty one if nothing waits."""
        place = self._place
        if place is None:
            return b":\n\n"
        if place.progress is not None:
            what = b"downloading" if place.is_downloading else b"loading"
            return b": %b %d %%\n\n" % (what, place.progress * 100)
        expected = place.expected_wait_seconds
        about = b"" if expected is None else b", about %d s" % ceil(expected)
        return b": queued, position %d%b\n\n" % (place.position, about)
