"""What is asked of a worker's conversations, and what comes of answers that come late or never."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

import anyio
import pytest

from llm_router_mw.errors import LLMRouterError, SnapshotError, WorkerDiedError
from llm_router_mw.protocols import KeepsSequences
from llm_router_mw.router.sequences import WorkerSequences
from llm_router_mw.types import (
    CompletionTask,
    LoadOptions,
    Sampling,
    SequenceInfo,
    Snapshot,
    Spare,
)
from llm_router_mw.wire import (
    ListSequences,
    OfferSnapshots,
    SaveFailed,
    SaveSequence,
    Sequences,
    SequenceSaved,
    SnapshotBad,
    SnapshotKept,
    SnapshotNews,
    SnapshotUsed,
    ToWorker,
    WithdrawSnapshots,
)
from tests.router.clients import ignore_progress, order, read, worker
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio

INFO = SequenceInfo(
    sequence=3, key="k", n_tokens=100, blocks=b"12345678", state_bytes=5000, used_seconds_ago=1.0
)


def snapshot(path: str) -> Snapshot:
    return Snapshot(
        path=path,
        identity="i",
        key="k",
        n_tokens=100,
        blocks=b"12345678",
        size_bytes=5000,
        created_at=1.0,
    )


class Desk:
    """A worker's conversations, with what was sent and told written down."""

    def __init__(self, stall_seconds: float = 60.0) -> None:
        self.sent: list[ToWorker] = []
        self.told: list[SnapshotNews] = []
        self.sequences = WorkerSequences(self.sent.append, stall_seconds)
        self.sequences.listen(self.told.append)
        self.results: list[object] = []

    async def list(self) -> None:
        """Ask for the list and write down what comes."""
        await self._note(self.sequences.list())

    async def save(self, path: str) -> None:
        """Have something saved and write down what comes."""
        await self._note(self.sequences.save(3, path))

    async def _note(self, answer: Awaitable[object]) -> None:
        try:
            self.results.append(await answer)
        except LLMRouterError as error:
            self.results.append(error)

    async def when_sent(self, count: int) -> None:
        """Return when so many messages have gone out."""
        await until(lambda: len(self.sent) == count)


async def test_the_list_is_the_answer() -> None:
    desk = Desk()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.list)
        await desk.when_sent(1)
        desk.sequences.take(Sequences([INFO]))
    assert desk.sent == [ListSequences()]
    assert desk.results == [(INFO,)]


async def test_an_answer_to_a_list_that_was_given_up_is_not_taken_for_the_next() -> None:
    desk = Desk()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.list)
            await desk.when_sent(1)
            scope.cancel()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.list)
        await desk.when_sent(2)
        desk.sequences.take(Sequences([]))
        desk.sequences.take(Sequences([INFO]))
    assert desk.results == [(INFO,)]
    desk.sequences.take(Sequences([INFO]))  # nobody asked, nobody minds


async def test_what_is_saved_is_told_by_its_path() -> None:
    desk = Desk()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.save, "/a")
        await desk.when_sent(1)
        tasks.start_soon(desk.save, "/b")
        await desk.when_sent(2)
        desk.sequences.take(SequenceSaved(snapshot("/b")))
        error = SnapshotError("no room", out_of_space=True)
        desk.sequences.take(SaveFailed("/a", error.to_failure()))
    assert desk.sent == [SaveSequence(3, "/a"), SaveSequence(3, "/b")]
    failed = next(each for each in desk.results if isinstance(each, SnapshotError))
    assert (failed.message, failed.out_of_space) == ("no room", True)
    assert snapshot("/b") in desk.results
    assert desk.told == []


async def test_a_file_that_comes_when_nobody_waits_any_more_is_news() -> None:
    desk = Desk()
    with anyio.move_on_after(0.01):
        await desk.save("/a")
    desk.sequences.take(SequenceSaved(snapshot("/a")))
    desk.sequences.take(SaveFailed("/b", SnapshotError("no room").to_failure()))
    assert desk.told == [SnapshotKept(snapshot("/a"))]


async def test_news_go_to_who_listens() -> None:
    desk = Desk()
    news: list[SnapshotNews]
    news = [SnapshotUsed("/a", 10, 0.1), SnapshotBad("/b", "x"), SnapshotKept(snapshot("/c"))]
    for each in news:
        desk.sequences.take(each)
    assert desk.told == news
    WorkerSequences(desk.sent.append, 60.0).take(news[0])  # nobody listens yet


async def test_offers_go_out_as_they_are() -> None:
    desk = Desk()
    spare = Spare(path="/s", limit_bytes=5)
    desk.sequences.offer((snapshot("/a"),), (spare,))
    desk.sequences.withdraw(("/a", "/s"))
    offered = OfferSnapshots([snapshot("/a")], [spare])
    assert desk.sent == [offered, WithdrawSnapshots(["/a", "/s"])]


async def test_silence_is_not_waited_for_for_ever() -> None:
    desk = Desk(stall_seconds=0.05)
    await desk.list()
    await desk.save("/a")
    assert all("said nothing for 0.05 s" in str(error) for error in desk.results)
    assert len(desk.results) == 2


async def test_signs_of_life_are_waited_for() -> None:
    desk = Desk(stall_seconds=0.2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.save, "/a")
        for _ in range(6):
            await anyio.sleep(0.1)
            desk.sequences.heard()
        desk.sequences.take(SequenceSaved(snapshot("/a")))
    assert desk.results == [snapshot("/a")]


async def test_when_it_dies_all_learn_of_it() -> None:
    desk, death = Desk(), WorkerDiedError("gone")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.list)
        tasks.start_soon(desk.save, "/a")
        await desk.when_sent(2)
        desk.sequences.fail(death)
    await desk.list()
    await desk.save("/b")
    assert desk.results == [death] * 4
    assert len(desk.sent) == 2


async def test_a_real_worker_keeps_what_it_is_told_to(tiny_model: Path, tmp_path: Path) -> None:
    def task(text: str) -> CompletionTask:
        return CompletionTask(prompt=text, max_tokens=5, sampling=Sampling(temperature=0))

    text = "the fox " * 60
    told: list[SnapshotNews] = []
    async with worker() as made:
        assert isinstance(made, KeepsSequences)
        made.listen(told.append)
        await made.greet()
        await made.load(
            order(tiny_model, LoadOptions(n_ctx=1024, n_threads=1), identity="this"),
            ignore_progress,
        )
        expected, _ = await read(made, task(text))
        [info] = await made.sequences()
        saved = await made.save(info.sequence, str(tmp_path / "saved"))
        with pytest.raises(SnapshotError, match="nothing that could be saved"):
            await made.save(info.sequence + 1, str(tmp_path / "other"))
        await made.sleep("full")
        assert await made.sequences() == ()
        made.offer([saved], [])
        await made.wake(ignore_progress)
        answer, finish = await read(made, task(text))
        assert answer == expected
        assert finish.usage.cached_tokens == finish.usage.prompt_tokens - 1
        assert [type(each) for each in told] == [SnapshotUsed]
        made.withdraw([saved.path])
        made.kill()
        with pytest.raises(WorkerDiedError):
            await made.sequences()
        with pytest.raises(WorkerDiedError):
            await made.save(0, str(tmp_path / "late"))
        made.offer([saved], [])
