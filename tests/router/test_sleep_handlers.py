"""Sleep handlers: called in order and in time, and never able to hold up an instance."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from llm_router_mw.errors import SnapshotError
from llm_router_mw.faults import Faults
from llm_router_mw.protocols import InstanceHandle
from llm_router_mw.router import sleep_handlers
from llm_router_mw.router.handle import Handle
from llm_router_mw.router.sleep_handlers import SleepHandlers
from llm_router_mw.types import (
    InstanceKey,
    LoadOptions,
    Purged,
    SequenceInfo,
    Snapshot,
    Spare,
    Step,
    StoredSnapshot,
)
from llm_router_mw.wire import SnapshotBad, SnapshotNews
from tests.support.fake_handle import sequence
from tests.support.snapshots import snapshot
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

KEY = InstanceKey("/models/a.gguf", LoadOptions())


@dataclass
class Engine:
    """An engine's instance that keeps sequences."""

    told: list[Any] = field(default_factory=list)
    listener: Callable[[SnapshotNews], None] | None = None

    async def sequences(self) -> Sequence[SequenceInfo]:
        return (sequence(0, 1),)

    async def save(self, sequence: int, path: str) -> Snapshot:
        return snapshot(path)

    def offer(self, snapshots: Sequence[Snapshot], spares: Sequence[Spare]) -> None:
        self.told.append(("offer", list(snapshots), list(spares)))

    def withdraw(self, paths: Sequence[str]) -> None:
        self.told.append(("withdraw", list(paths)))

    def listen(self, listener: Callable[[SnapshotNews], None]) -> None:
        self.listener = listener


class Handler:
    """Notes its calls in *story*, and does *sleeping* and *resuming* besides."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.story = story
        self.sleeping: Callable[[InstanceHandle], Any] = self._nothing
        self.resuming: Callable[[InstanceHandle], Any] = self._nothing

    async def _nothing(self, handle: InstanceHandle) -> None:
        await anyio.lowlevel.checkpoint()

    async def sleep(self, handle: InstanceHandle, level: Step) -> None:
        self.story.append(f"{self.name} {level}")
        await self.sleeping(handle)
        self.story.append(f"{self.name} has slept")

    async def resume(self, handle: InstanceHandle) -> None:
        self.story.append(f"{self.name} resumes")
        await self.resuming(handle)
        self.story.append(f"{self.name} has resumed")


class Store(Handler):
    """A handler that is a store, too."""

    def running(self) -> Any: ...

    def heard(self, handle: InstanceHandle, news: SnapshotNews) -> None:
        self.story.append(f"{self.name} hears of {news.path}")  # type: ignore[union-attr]
        raise ZeroDivisionError

    def left(self, handle: InstanceHandle) -> None:
        self.story.append(f"{self.name} is left")

    def snapshots(self) -> Sequence[StoredSnapshot]:
        return ()

    async def purge(self, path: str | None = None) -> Purged:
        return Purged()


@dataclass
class Stage:
    """Handlers, and what was told of them."""

    handlers: SleepHandlers
    faults: Faults
    events: list[str]
    engine: Engine
    handle: Handle
    world: dict[str, bool]


@asynccontextmanager
async def stage(*handlers: Any, limit: float = 5.0) -> AsyncIterator[Stage]:
    faults = Faults()
    told: list[str] = []
    world = {"hurried": False}
    async with anyio.create_task_group() as tasks:
        made = SleepHandlers(
            handlers,
            tasks,
            faults,
            lambda key, reason: told.append(reason),
            models=lambda key: ("a", "b"),
            hurried=lambda: world["hurried"],
            timeout_seconds=limit,
            closing_seconds=min(limit, 0.1),
        )
        engine = Engine()
        handle = made.handle(KEY, engine, "identity", lambda: {"host": 5})  # type: ignore[arg-type]
        yield Stage(made, faults, told, engine, handle, world)
        tasks.cancel_scope.cancel()


async def test_they_are_called_one_after_the_other() -> None:
    story: list[str] = []
    async with stage(Handler("one", story), Handler("two", story)) as theatre:
        await theatre.handlers.sleep(theatre.handle, "context")
        assert story == ["one context", "one has slept", "two context", "two has slept"]
        await theatre.handlers.resume(theatre.handle)
        assert story[4:] == [
            "one resumes",
            "two resumes",
            "one has resumed",
            "two has resumed",
        ]


async def test_one_that_raises_is_told_logged_once_and_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    story: list[str] = []
    broken = Handler("broken", story)

    async def fail(handle: InstanceHandle) -> None:
        raise ZeroDivisionError("by zero")

    broken.sleeping = broken.resuming = fail
    async with stage(broken, Handler("sound", story)) as theatre:
        for _ in range(2):
            await theatre.handlers.sleep(theatre.handle, "full")
            await theatre.handlers.resume(theatre.handle)
        assert story.count("sound has slept") == story.count("sound has resumed") == 2
        assert theatre.events == ["sleep handler 'broken' failed: by zero"] * 4
        assert list(theatre.faults.counts.values()) == [4]
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1


async def test_one_that_takes_too_long_is_cut_off() -> None:
    story: list[str] = []
    slow = Handler("slow", story)
    slow.sleeping = lambda handle: anyio.sleep_forever()
    async with stage(slow, Handler("quick", story), limit=0.05) as theatre:
        with anyio.fail_after(5):
            await theatre.handlers.sleep(theatre.handle, "stop")
        assert "quick has slept" in story
        assert theatre.events == ["sleep handler 'slow' failed: it took longer than 0.05 s"]


async def test_one_that_refuses_to_be_cut_off_is_left_behind_with_a_dead_handle() -> None:
    story: list[str] = []
    stubborn, go_on = Handler("stubborn", story), anyio.Event()

    async def refuse(handle: InstanceHandle) -> None:
        with anyio.CancelScope(shield=True):
            await go_on.wait()
            with pytest.raises(SnapshotError, match="too late"):
                await handle.sequences()
            with pytest.raises(SnapshotError, match="too late"):
                await handle.save(0, "/x.kv")
            story.append("it was too late")

    stubborn.sleeping = refuse
    async with stage(stubborn, limit=0.05) as theatre:
        with anyio.fail_after(5):
            await theatre.handlers.sleep(theatre.handle, "full")
        go_on.set()
        await until(lambda: "it was too late" in story)
        assert len(theatre.events) == 1


async def test_where_requests_wait_there_is_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleep_handlers, "_HURRIED_SECONDS", 0.05)
    slow = Handler("slow", [])
    slow.sleeping = lambda handle: anyio.sleep_forever()
    async with stage(slow, limit=1000.0) as theatre:
        theatre.world["hurried"] = True
        with anyio.fail_after(5):
            await theatre.handlers.sleep(theatre.handle, "stop")
        assert "0.05 s" in theatre.events[0]


async def test_while_the_router_closes_there_is_less_time() -> None:
    slow = Handler("slow", [])
    slow.sleeping = lambda handle: anyio.sleep_forever()
    async with stage(slow, limit=1000.0) as theatre:
        theatre.handlers.close()
        with anyio.fail_after(5):
            await theatre.handlers.sleep(theatre.handle, "stop")
        assert "0.1 s" in theatre.events[0]


async def test_the_first_request_waits_for_a_resume_only_a_moment() -> None:
    story: list[str] = []
    slow, go_on = Handler("slow", story), anyio.Event()
    slow.resuming = lambda handle: go_on.wait()
    async with stage(slow) as theatre:
        with anyio.fail_after(3):
            await theatre.handlers.resume(theatre.handle)
        assert "slow has resumed" not in story
        go_on.set()
        await until(lambda: "slow has resumed" in story)
        assert theatre.events == []


async def test_a_resume_that_never_ends_is_cut_off() -> None:
    slow = Handler("slow", [])
    slow.resuming = lambda handle: anyio.sleep_forever()
    async with stage(slow, limit=0.2) as theatre:
        await theatre.handlers.resume(theatre.handle)
        await until(lambda: len(theatre.events) == 1)


async def test_stores_hear_what_workers_say_and_cannot_hurt_by_it() -> None:
    story: list[str] = []
    async with stage(Store("store", story), Handler("plain", story)) as theatre:
        assert theatre.engine.listener is not None
        theatre.engine.listener(SnapshotBad("/x.kv", "it is bad"))
        theatre.handlers.left(theatre.handle)
        assert story == ["store hears of /x.kv", "store is left"]
        assert len(theatre.events) == 1


# What they are given


async def test_the_handle_shows_the_instance_and_the_world() -> None:
    async with stage() as theatre:
        handle = theatre.handle
        assert (handle.key, handle.models, handle.identity) == (KEY, ("a", "b"), "identity")
        assert (handle.hurried, handle.closing, handle.memory()) == (False, False, {"host": 5})
        theatre.world["hurried"] = True
        theatre.handlers.close()
        assert (handle.hurried, handle.closing) == (True, True)


async def test_the_handle_passes_on_what_the_engine_can() -> None:
    handler = Handler("one", [])
    found: list[Any] = []

    async def look(handle: InstanceHandle) -> None:
        found.extend([*(await handle.sequences()), await handle.save(0, "/y.kv")])

    handler.sleeping = look
    async with stage(handler) as theatre:
        await theatre.handlers.sleep(theatre.handle, "full")
        assert found == [sequence(0, 1), snapshot("/y.kv")]
        spare = Spare(path="/s.kv", limit_bytes=1)
        theatre.handle.offer([snapshot()], [spare])
        theatre.handle.withdraw(["/x.kv"])
        assert theatre.engine.told == [
            ("offer", [snapshot()], [spare]),
            ("withdraw", ["/x.kv"]),
        ]


async def test_an_engine_that_keeps_no_sequences_has_none() -> None:
    async with stage() as theatre:
        handle = theatre.handlers.handle(KEY, object(), "identity", dict)  # type: ignore[arg-type]
        handle.is_open = True
        assert handle.identity == ""
        assert await handle.sequences() == ()
        with pytest.raises(SnapshotError, match="saves no sequences"):
            await handle.save(0, "/x.kv")
        handle.offer([snapshot()])
        handle.withdraw(["/x.kv"])


async def test_files_that_have_changed_take_the_identity_away() -> None:
    async with stage() as theatre:
        theatre.handle.verify("identity")
        assert theatre.handle.identity == "identity"
        theatre.handle.verify("another")
        assert theatre.handle.identity == ""
