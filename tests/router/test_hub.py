"""Observers and subscribers: none can hold the router up, none misses what counts."""

from __future__ import annotations

import anyio
import pytest

from llm_router_mw.router.hub import EventHub
from llm_router_mw.types import RouterEvent

pytestmark = pytest.mark.asyncio


def event(kind: str = "status", number: int = 0) -> RouterEvent:
    return RouterEvent(kind=kind, model="a", at_seconds=float(number))  # type: ignore[arg-type]


def snapshot() -> RouterEvent:
    return event("snapshot")


class Listener:
    """An observer that remembers, or raises."""

    def __init__(self, name: str, broken: bool = False) -> None:
        self.name = name
        self.broken = broken
        self.heard: list[RouterEvent] = []

    def on_event(self, event: RouterEvent) -> None:
        self.heard.append(event)
        if self.broken:
            raise ValueError("broken")


async def test_a_subscription_begins_with_a_snapshot_and_goes_on_with_what_follows() -> None:
    hub = EventHub(())
    hub.publish(event(number=1))
    subscription = hub.subscribe(snapshot)
    hub.publish(event(number=2))
    assert await anext(subscription) == snapshot()
    assert await anext(subscription) == event(number=2)


async def test_a_subscriber_waits_for_the_next_event() -> None:
    hub = EventHub(())
    subscription = hub.subscribe(snapshot)
    await anext(subscription)
    heard: list[RouterEvent] = []

    async def listen() -> None:
        heard.extend([each async for each in subscription])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await anyio.lowlevel.checkpoint()
        hub.publish(event())
        await anyio.lowlevel.checkpoint()
        hub.unsubscribe(subscription)
    assert heard == [event()]


async def test_unsubscribing_twice_is_harmless_and_ends_the_iteration() -> None:
    hub = EventHub(())
    subscription = hub.subscribe(snapshot)
    hub.unsubscribe(subscription)
    hub.unsubscribe(subscription)
    hub.publish(event())
    assert [each async for each in subscription] == [snapshot()]


async def test_closing_ends_all_subscriptions_after_their_backlog() -> None:
    hub = EventHub(())
    subscriptions = [hub.subscribe(snapshot) for _ in range(2)]
    hub.publish(event())
    hub.close()
    for subscription in subscriptions:
        assert [each async for each in subscription] == [snapshot(), event()]


async def test_a_subscriber_that_falls_far_behind_gets_a_new_snapshot_instead() -> None:
    hub = EventHub(())
    pictures = 0

    def counted() -> RouterEvent:
        nonlocal pictures
        pictures += 1
        return event("snapshot", pictures)

    subscription = hub.subscribe(counted)
    for number in range(1000):
        hub.publish(event(number=number))
    hub.publish(event(number=1001))
    hub.close()
    assert [each async for each in subscription] == [event("snapshot", 2), event(number=1001)]


async def test_an_observer_that_raises_is_logged_once_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, sound = Listener("broken", broken=True), Listener("sound")
    hub = EventHub((broken, sound))
    hub.publish(event(number=1))
    hub.publish(event(number=2))
    assert sound.heard == broken.heard == [event(number=1), event(number=2)]
    assert caplog.text.count("observer 'broken' failed") == 1
