"""Memory of ours that is no instance's: what is said of it, and how it is given back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from llm_router_mw.faults import Faults
from llm_router_mw.protocols import MemoryAccount, MemoryHolder
from llm_router_mw.router import holdings
from llm_router_mw.router.holdings import Holdings
from llm_router_mw.scheduler import events

pytestmark = pytest.mark.asyncio


class Cache:
    """A holder of 100 bytes that gives back what it is asked for, when it is let."""

    name = "cache"

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.account: MemoryAccount | None = None
        self.size = 100
        self.step = 1.0
        self.go_on = anyio.Event()
        self.go_on.set()

    def use_account(self, account: MemoryAccount) -> None:
        self.account = account
        account.hold({"host": self.size})

    async def shed(self, pool: str, n_bytes: int) -> None:
        self.asked.append((pool, n_bytes))
        await self.go_on.wait()
        assert self.account is not None
        for part in (n_bytes // 2, n_bytes - n_bytes // 2):
            self.size -= int(part * self.step)
            self.account.hold({"host": self.size})


class Stage:
    """The accounts, and what the scheduler is told."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.told: list[events.Event] = []
        self.faults = Faults()
        self.holdings = Holdings(tasks, self.told.append, lambda pool: 7, self.faults)
        self.cache = Cache()
        self.holdings.open_for((object(), self.cache))

    def said(self, size: int, *, sheddable: bool = True) -> events.Held:
        held = {"host": size} if size else {}
        return events.Held(holder="cache", bytes_by_pool=held, sheddable=sheddable)


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            yield Stage(tasks)


async def test_whoever_holds_memory_gets_an_account() -> None:
    async with staged() as stage:
        assert isinstance(stage.cache, MemoryHolder)
        assert stage.told == [stage.said(100)]
        assert stage.holdings.bytes_by_pool() == {"host": 100}
        assert stage.cache.account is not None
        assert stage.cache.account.room("host") == 7


async def test_nothing_is_held_by_one_that_says_so() -> None:
    async with staged() as stage:
        account = stage.holdings.open("spare")
        account.hold({"host": 5, "gpu": 2})
        assert stage.holdings.bytes_by_pool() == {"host": 105, "gpu": 2}
        account.hold({"host": 0})
        assert stage.told[-1] == events.Held(holder="spare", bytes_by_pool={})


async def test_what_is_asked_for_is_given_back_and_told_when_it_is_free() -> None:
    async with staged() as stage:
        stage.cache.go_on = anyio.Event()
        stage.holdings.shed("cache", "host", 30)
        assert stage.told == [stage.said(100)]
        stage.cache.go_on.set()
        await stage.holdings.settled()
        # Not in between: the rest was on its way.
        assert stage.told == [stage.said(100), stage.said(70)]


async def test_until_then_it_is_seen_as_ours() -> None:
    async with staged() as stage:
        stage.cache.go_on = anyio.Event()
        stage.holdings.shed("cache", "host", 30)
        await anyio.lowlevel.checkpoint()
        assert stage.holdings.bytes_by_pool() == {"host": 100}
        stage.cache.go_on.set()


async def test_who_asks_meanwhile_is_served_by_the_same() -> None:
    async with staged() as stage:
        stage.cache.go_on = anyio.Event()
        stage.holdings.shed("cache", "host", 30)
        await anyio.lowlevel.checkpoint()
        stage.holdings.shed("cache", "host", 10)
        stage.holdings.shed("cache", "host", 5)
        stage.cache.go_on.set()
        await stage.holdings.settled()
        assert stage.cache.asked == [("host", 30), ("host", 15)]
        assert stage.told[-1] == stage.said(55)


async def test_one_that_gives_nothing_back_is_not_asked_again_until_it_says_something() -> None:
    async with staged() as stage:
        stage.cache.step = 0.0
        stage.holdings.shed("cache", "host", 30)
        await stage.holdings.settled()
        await anyio.lowlevel.checkpoint()
        assert stage.told[-1] == stage.said(100, sheddable=False)
        assert stage.cache.account is not None
        stage.cache.account.hold({"host": 90})
        assert stage.told[-1] == stage.said(90)


async def test_one_that_fails_is_told_of_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(pool: str, n_bytes: int) -> None:
        raise OSError("it is stuck")

    async with staged() as stage:
        account = stage.holdings.open("broken", fail)
        account.hold({"host": 3})
        stage.holdings.shed("broken", "host", 3)
        await stage.holdings.settled()
        await anyio.lowlevel.checkpoint()
        assert isinstance(stage.told[-1], events.Held)
        assert not stage.told[-1].sheddable
        assert stage.faults.counts == {"memory holder 'broken'": 1}
    assert "memory holder 'broken' failed: it is stuck" in caplog.text


async def test_one_that_never_ends_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holdings, "_SHED_SECONDS", 0.01)
    async with staged() as stage:
        stage.cache.go_on = anyio.Event()
        stage.holdings.shed("cache", "host", 30)
        await stage.holdings.settled()
        assert stage.told[-1] == stage.said(100, sheddable=False)
    assert stage.faults.counts == {"memory holder 'cache'": 1}
