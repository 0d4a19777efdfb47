"""Downloads are begun and stopped as told, and everybody hears how far they are."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from llm_router_mw.errors import DownloadError, ModelFileError
from llm_router_mw.router.downloads import Downloads
from llm_router_mw.scheduler import events
from llm_router_mw.types import InstanceKey, LoadOptions
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

KEY = InstanceKey("hf://owner/name", LoadOptions())


class Desk:
    """Takes events and news of progress; its downloads do as they are told."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.events: list[events.Event] = []
        self.progress: list[float] = []
        self.now = 0.0
        self.fetched: list[str] = []
        self.told: Callable[[int, int], None] | None = None
        self.problem: Exception | None = None
        self.go_on = anyio.Event()
        self.downloads = Downloads(
            tasks,
            self.events.append,
            self.fetch,
            lambda key, value: self.progress.append(value),
            lambda: self.now,
        )

    async def fetch(self, path: str, told: Callable[[int, int], None]) -> None:
        self.fetched.append(path)
        self.told = told
        await self.go_on.wait()
        if self.problem is not None:
            raise self.problem


async def test_the_end_is_told() -> None:
    async with anyio.create_task_group() as tasks:
        desk = Desk(tasks)
        desk.downloads.start(KEY, 3)
        assert desk.downloads.progress(KEY) == 0.0
        desk.go_on.set()
    assert desk.fetched == [KEY.path]
    assert desk.events == [events.Downloaded(instance=KEY, generation=3)]
    assert desk.downloads.progress(KEY) is None


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (ModelFileError("no such model"), "ModelFileError"),
        (RuntimeError("no such disk"), "DownloadError"),
    ],
)
async def test_a_failure_is_told(
    problem: Exception, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as tasks:
        desk = Desk(tasks)
        desk.problem = problem
        desk.downloads.start(KEY, 1)
        desk.go_on.set()
    (event,) = desk.events
    assert isinstance(event, events.DownloadFailed)
    assert event.failure.kind == kind
    assert str(problem) in event.failure.message


async def test_one_that_is_stopped_says_nothing_more() -> None:
    async with anyio.create_task_group() as tasks:
        desk = Desk(tasks)
        desk.downloads.start(KEY, 1)
        await until(lambda: desk.fetched)
        desk.downloads.cancel(KEY, 2)  # another one
        assert desk.downloads.progress(KEY) == 0.0
        desk.downloads.cancel(KEY, 1)
        await until(lambda: desk.downloads.progress(KEY) is None)
        desk.downloads.cancel(KEY, 1)
    assert desk.events == []


async def test_one_may_begin_while_the_one_before_ends() -> None:
    async with anyio.create_task_group() as tasks:
        desk = Desk(tasks)
        desk.problem = DownloadError("of both")
        desk.downloads.start(KEY, 1)
        await until(lambda: desk.fetched)
        desk.downloads.cancel(KEY, 1)
        desk.downloads.start(KEY, 2)
        await until(lambda: len(desk.fetched) == 2)
        assert desk.downloads.progress(KEY) == 0.0
        desk.go_on.set()
    (event,) = desk.events
    assert isinstance(event, events.DownloadFailed)
    assert event.generation == 2


async def test_progress_is_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "llm_router_mw.router")
    async with anyio.create_task_group() as tasks:
        desk = Desk(tasks)
        desk.now = 100.0
        desk.downloads.start(KEY, 1)
        await until(lambda: desk.told)
        assert desk.told is not None
        for done, desk.now in ((1, 100.0), (2, 100.1), (3, 100.4), (5, 100.6), (6, 100.9)):
            desk.told(done, 10)
            assert desk.downloads.progress(KEY) == done / 10
        desk.told(0, 0)
        assert desk.downloads.progress(KEY) == 1.0
        desk.go_on.set()
    assert desk.progress == [0.1, 0.5]
    assert caplog.messages[:2] == [
        "name: 10 % of 0.0 GiB downloaded",
        "name: 20 % of 0.0 GiB downloaded",
    ]
