"""Hands events to observers and subscribers; none of them can hold the router up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from llm_router_mw.faults import Faults
from llm_router_mw.protocols import Observer
from llm_router_mw.types import RouterEvent

_BACKLOG = 1000


class Subscription:
    """An endless iterator of events. The first is a snapshot, so nobody subscribes too late.

    A subscriber that falls too far behind loses its backlog and gets a new snapshot instead.
    """

    def __init__(self, snapshot: Callable[[], RouterEvent]) -> None:
        self._snapshot = snapshot
        self._backlog: list[RouterEvent] = [snapshot()]
        self._wake = anyio.Event()
        self._closed = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> RouterEvent:
        while not self._backlog:
            if self._closed:
                raise StopAsyncIteration
            self._wake = anyio.Event()
            await self._wake.wait()
        return self._backlog.pop(0)

    def publish(self, event: RouterEvent) -> None:
        if len(self._backlog) >= _BACKLOG:
            self._backlog = [self._snapshot()]
        else:
            self._backlog.append(event)
        self._wake.set()

    def close(self) -> None:
        """End the iteration once the backlog has been read."""
        self._closed = True
        self._wake.set()


class EventHub:
    """Knows who listens."""

    def __init__(self, observers: Sequence[Observer], faults: Faults | None = None) -> None:
        self._observers = list(observers)
        self._faults = faults or Faults()
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: RouterEvent) -> None:
        for observer in self._observers:
            try:
                observer.on_event(event)
            except Exception as error:
                self._faults.add("observer", observer.name, error)
        for subscription in tuple(self._subscriptions):
            subscription.publish(event)

    def subscribe(self, snapshot: Callable[[], RouterEvent]) -> Subscription:
        subscription = Subscription(snapshot)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        subscription.close()

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in tuple(self._subscriptions):
            self.unsubscribe(subscription)
