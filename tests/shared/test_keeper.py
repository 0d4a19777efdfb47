"""Staying connected, and asking the next host what the lost one has not answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from llm_router_mw.errors import (
    ConfigError,
    HostDiedError,
    ModelNotFoundError,
    QueueTimeoutError,
    RouterNotRunningError,
)
from llm_router_mw.shared import keeper as keeper_module
from llm_router_mw.shared.keeper import HOSTS_TRIED, Keeper
from llm_router_mw.shared.link import Link
from llm_router_mw.shared.messages import Abandon, Ask, Granted, Queued, Refused, Unload
from llm_router_mw.types import AS_USUAL, QueuePlace, Wish
from tests.support.pretended_host import PretendedHosts, pretended_hosts
from tests.support.waiting import outcome, until

pytestmark = pytest.mark.asyncio

Outcomes = list[object]


class Kept:
    """A keeper that runs, the hosts that it meets, and what it tells."""

    def __init__(self, hosts: PretendedHosts, queue_timeout_seconds: float) -> None:
        self.hosts = hosts
        self.told: list[str] = []
        self.keeper = Keeper(
            hosts.meet,
            lambda meeting: Link(meeting, lambda news: None),
            on_welcome=lambda welcome: self.told.append("welcome"),
            on_lost=lambda: self.told.append("lost"),
            queue_timeout_seconds=queue_timeout_seconds,
        )

    async def load(self) -> object:
        """Ask for something that is answered once."""
        return await self.keeper.answer(lambda number: Unload(number, "a", False, True), bool)

    async def grant(self, wish: Wish = AS_USUAL) -> object:
        """Ask for a lease."""
        return await self.keeper.grant(("a",), wish)


@asynccontextmanager
async def kept(queue_timeout_seconds: float = 60.0) -> AsyncIterator[Kept]:
    async with pretended_hosts() as hosts, anyio.create_task_group() as tasks:
        made = Kept(hosts, queue_timeout_seconds)
        await made.keeper.open()
        tasks.start_soon(made.keeper.run)
        try:
            yield made
        finally:
            await made.keeper.aclose()
            tasks.cancel_scope.cancel()


async def test_the_first_host_is_met_before_anything_is_asked() -> None:
    async with kept() as made:
        assert made.told == ["welcome"]


async def test_a_start_that_fails_fails_as_it_is() -> None:
    async with pretended_hosts() as hosts:
        hosts.failures = [ConfigError("models_dir is wrong")]
        made = Kept(hosts, 60.0)
        with pytest.raises(ConfigError, match="models_dir"):
            await made.keeper.open()
        await made.keeper.run()  # there is nothing to do
        await made.keeper.aclose()


async def test_the_next_host_is_met_at_once() -> None:
    async with kept() as made:
        await (await made.hosts.next()).die()
        await made.hosts.next()
        await until(lambda: made.told == ["welcome", "lost", "welcome"])


async def test_what_was_not_answered_is_asked_again() -> None:
    outcomes: Outcomes = []
    async with kept() as made, anyio.create_task_group() as tasks:
        first = await made.hosts.next()
        tasks.start_soon(outcome, made.load, outcomes)
        await first.hear(Unload)
        await first.die()
        second = await made.hosts.next()
        await second.answer((await second.hear(Unload)).id, True)
        await until(lambda: outcomes)
    assert outcomes == [True]


async def test_a_request_that_was_queued_is_queued_at_the_next_host() -> None:
    places: list[QueuePlace] = []
    async with kept() as made, anyio.create_task_group() as tasks:
        first = await made.hosts.next()
        tasks.start_soon(made.keeper.grant, ("a", "b"), AS_USUAL, places.append)
        ask = await first.hear(Ask)
        assert (ask.models, ask.wish, ask.tell_place) == (("a", "b"), AS_USUAL, True)
        await first.say(Queued(ask.id, QueuePlace(position=3)))
        await first.die()
        second = await made.hosts.next()
        ask = await second.hear(Ask)
        assert (ask.models, ask.wish, ask.tell_place) == (("a", "b"), AS_USUAL, True)
        await second.say(Queued(ask.id, QueuePlace(position=1)), Granted(ask.id, ()))
    assert places == [QueuePlace(position=3), QueuePlace(position=1)]


async def test_the_next_host_has_only_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper_module, "_MOMENT_SECONDS", 0.0)
    async with kept(60.0) as made, anyio.create_task_group() as tasks:
        tasks.start_soon(made.grant, Wish(priority=2, timeout_seconds=30.0))
        host = await made.hosts.next()
        ask = await host.hear(Ask)
        assert ask.wish.priority == 2
        assert ask.wish.timeout_seconds is not None
        assert 25.0 < ask.wish.timeout_seconds <= 30.0
        await host.say(Granted(ask.id, ()))


async def test_what_ends_one_host_after_the_other_is_given_up() -> None:
    outcomes: Outcomes = []
    async with kept() as made, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome, made.grant, outcomes)
        for _ in range(HOSTS_TRIED):
            host = await made.hosts.next()
            await host.hear(Ask)
            await host.die()
        await until(lambda: outcomes)
    assert isinstance(outcomes[0], HostDiedError)


async def test_a_refusal_is_not_asked_again() -> None:
    outcomes: Outcomes = []
    async with kept() as made, anyio.create_task_group() as tasks:
        tasks.start_soon(outcome, made.load, outcomes)
        host = await made.hosts.next()
        failure = ModelNotFoundError("no model").to_failure()
        await host.say(Refused((await host.hear(Unload)).id, failure))
        await until(lambda: outcomes)
        assert len(made.hosts.all) == 1
    assert isinstance(outcomes[0], ModelNotFoundError)


async def test_who_waits_is_told_that_there_is_no_host_and_the_log_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes: Outcomes = []
    async with kept() as made, anyio.create_task_group() as tasks:
        made.hosts.failures = [ConfigError("models_dir is gone")]
        await (await made.hosts.next()).die()
        await until(lambda: made.told[-1] == "lost")
        tasks.start_soon(outcome, made.load, outcomes)
        tasks.start_soon(outcome, made.grant, outcomes)
        await until(lambda: len(outcomes) == 2)
        assert made.hosts.meetings == 1 + 3
        for error in outcomes:
            assert isinstance(error, RouterNotRunningError)
            assert "none can be started" in error.message
            assert "models_dir" not in error.message  # clients see it
            assert error.retry_after_seconds == 5.0
        with pytest.raises(RouterNotRunningError, match="none can be started"):
            await made.load()  # who comes now need not wait at all
    assert "no host of the shared router: models_dir is gone" in caplog.text


async def test_a_host_is_met_as_soon_as_there_can_be_one(caplog: pytest.LogCaptureFixture) -> None:
    async with kept() as made, anyio.create_task_group() as tasks:
        made.hosts.failures = [ValueError("a defect")]
        await (await made.hosts.next()).die()
        await until(lambda: made.hosts.meetings >= 2)
        made.hosts.failures = []
        tasks.start_soon(made.load)
        host = await made.hosts.next()
        await host.answer((await host.hear(Unload)).id, True)
    assert "Traceback" in caplog.text  # nobody expected that one


async def test_nobody_waits_for_a_host_longer_than_for_a_model() -> None:
    async with kept(0.05) as made:
        made.hosts.gate = anyio.Event()
        await (await made.hosts.next()).die()
        await until(lambda: made.told[-1] == "lost")
        with pytest.raises(QueueTimeoutError, match="no other could be asked in time"):
            await made.load()
        with pytest.raises(QueueTimeoutError, match="no other could be asked in time"):
            await made.grant(Wish(timeout_seconds=0.01))
        made.hosts.gate.set()


async def test_who_leaves_while_there_is_no_host_is_not_asked_for() -> None:
    async with kept() as made:
        made.hosts.gate = anyio.Event()
        await (await made.hosts.next()).die()
        await until(lambda: made.told[-1] == "lost")
        with anyio.move_on_after(0.01):
            await made.grant()
        made.hosts.gate.set()
        host = await made.hosts.next()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.load)
            await host.answer((await host.hear(Unload)).id, True)
        assert len(host.all_heard) == 1


async def test_closing_ends_all_waiting() -> None:
    outcomes: Outcomes = []
    async with kept() as made, anyio.create_task_group() as tasks:
        host = await made.hosts.next()
        tasks.start_soon(outcome, made.grant, outcomes)
        await host.hear(Ask)
        await made.keeper.aclose()
        await host.hear_end()
        await until(lambda: outcomes)
        assert made.told == ["welcome"]
    assert isinstance(outcomes[0], RouterNotRunningError)
    assert not any(isinstance(each, Abandon) for each in host.all_heard)


async def test_closing_ends_the_waiting_for_a_host() -> None:
    outcomes: Outcomes = []
    async with kept() as made, anyio.create_task_group() as tasks:
        made.hosts.gate = anyio.Event()
        await (await made.hosts.next()).die()
        await until(lambda: made.told[-1] == "lost")
        tasks.start_soon(outcome, made.grant, outcomes)
        await anyio.wait_all_tasks_blocked()
        await made.keeper.aclose()
        await until(lambda: outcomes)
        made.hosts.gate.set()
    assert isinstance(outcomes[0], RouterNotRunningError)
