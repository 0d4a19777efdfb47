"""What must leave a context that is full goes to a file, if there is one and it is worth it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest

from llm_router_mw.engine import spares as spares_module
from llm_router_mw.engine.aside import Aside
from llm_router_mw.engine.pace import Pace
from llm_router_mw.engine.transfer import Rate
from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import SnapshotWriter, part_path, read_header
from llm_router_mw.types import Spare
from llm_router_mw.wire import SnapshotBad, SnapshotKept, SnapshotUsed
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.engine.snapshots import IDENTITY, ask, cached, news, save_all, snapshots, tokens

Start = Callable[..., Driver]
MORE = tokens(9, 30)
MIB = 2**20
SMALL = 48
"""Rows of a batch: from 64 on llama.cpp attends with another kernel, whose logits differ."""


@pytest.fixture
def start(load: Load, endless: Path) -> Start:
    """Load a model whose conversations may be kept; 256 tokens have room."""
    return partial(load, endless, identity=IDENTITY, n_ctx=256, n_batch=SMALL)


def hand_out(driver: Driver, folder: Path, count: int = 1, limit: int = MIB) -> list[Spare]:
    """Give *driver* so many spares."""
    made = []
    for number in range(count):
        spare = Spare(path=str(folder / f"spare-{number}"), limit_bytes=limit)
        part_path(spare.path).touch()
        made.append(spare)
    driver.engine.offers.offer([], made)
    return made


class TestKeeping:
    def test_what_gives_way_comes_back(self, start: Start, tmp_path: Path) -> None:
        driver, alone = start(), start()
        [spare] = hand_out(driver, tmp_path)
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 200))
        [kept] = news(driver, SnapshotKept)
        assert (kept.snapshot.path, kept.snapshot.n_tokens) == (spare.path, 119)
        assert kept.snapshot.size_bytes == Path(spare.path).stat().st_size
        assert read_header(spare.path).n_tokens == 119
        given = (*tokens(1, 100), *MORE)
        request = ask(driver, given)
        assert cached(driver, request) == 100
        assert driver.text(request) == alone.answer(prompt(given, max_tokens=20))
        assert [used.path for used in news(driver, SnapshotUsed)] == [spare.path]

    def test_without_a_spare_it_is_lost(self, start: Start) -> None:
        driver = start()
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 200))
        assert cached(driver, ask(driver, tokens(1, 100))) == 0
        assert driver.news == []

    def test_a_spare_that_was_withdrawn_is_not_written(self, start: Start, tmp_path: Path) -> None:
        driver = start()
        [spare] = hand_out(driver, tmp_path)
        driver.engine.offers.withdraw([spare.path])
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 200))
        assert driver.news == []
        assert not Path(spare.path).exists()

    def test_each_spare_is_written_once(self, start: Start, tmp_path: Path) -> None:
        driver = start()
        hand_out(driver, tmp_path, 2)
        for number in range(1, 6):
            ask(driver, tokens(number, 150))
        assert len(news(driver, SnapshotKept)) == 2

    def test_the_smallest_that_is_large_enough_is_taken(self, start: Start, tmp_path: Path) -> None:
        driver = start()
        ask(driver, tokens(1, 100))
        [info] = snapshots(driver).infos()
        limits = {"small": info.state_bytes - 1, "fitting": info.state_bytes, "large": MIB}
        folder = {name: tmp_path / name for name in limits}
        for name, limit in limits.items():
            folder[name].mkdir()
            hand_out(driver, folder[name], limit=limit)
        ask(driver, tokens(2, 200))
        [kept] = news(driver, SnapshotKept)
        assert Path(kept.snapshot.path).parent.name == "fitting"

    def test_one_that_is_too_small_is_left(self, start: Start, tmp_path: Path) -> None:
        driver = start()
        hand_out(driver, tmp_path, limit=4096)
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 200))
        assert driver.news == []

    def test_little_is_not_kept(self, start: Start, tmp_path: Path) -> None:
        driver = start()
        hand_out(driver, tmp_path)
        ask(driver, tokens(1, 30))
        ask(driver, tokens(2, 230))
        assert driver.news == []

    def test_nor_what_is_in_a_file_already(self, start: Start, tmp_path: Path) -> None:
        driver = start()
        ask(driver, tokens(1, 100))
        driver.engine.offers.offer(save_all(driver, tmp_path), [])
        hand_out(driver, tmp_path)
        ask(driver, tokens(2, 200))
        assert driver.news == []
        assert cached(driver, ask(driver, tokens(1, 100))) == 99

    def test_nor_what_another_slot_holds_too(self, start: Start, tmp_path: Path) -> None:
        driver = start(n_ctx=300)
        hand_out(driver, tmp_path)
        shared = tokens(1, 100)
        ask(driver, shared, max_tokens=1)
        running = driver.submit(prompt((*shared, *tokens(2, 30)), max_tokens=100))
        driver.step()
        ask(driver, tokens(3, 60))
        assert driver.finish(running).usage.completion_tokens == 100
        assert driver.news == []

    def test_a_slot_that_is_given_to_another_is_kept(self, start: Start, tmp_path: Path) -> None:
        driver = start(n_parallel=1, n_ctx=1024)
        hand_out(driver, tmp_path)
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 100))
        assert [each.snapshot.n_tokens for each in news(driver, SnapshotKept)] == [119]

    @pytest.mark.parametrize(("common", "kept"), [(20, True), (80, False)])
    def test_the_rest_of_a_conversation_is_kept_if_it_is_most_of_it(
        self, start: Start, tmp_path: Path, common: int, kept: bool
    ) -> None:
        driver = start(n_parallel=1, n_ctx=1024)
        hand_out(driver, tmp_path)
        ask(driver, tokens(1, 100))
        request = ask(driver, (*tokens(1, 100)[:common], *tokens(2, 50)))
        assert cached(driver, request) == common
        assert bool(news(driver, SnapshotKept)) == kept

    def test_also_where_room_is_all_that_lacks(self, start: Start, tmp_path: Path) -> None:
        driver = start(n_parallel=2)
        hand_out(driver, tmp_path)
        ask(driver, tokens(1, 200))
        request = ask(driver, (*tokens(1, 200)[:50], *tokens(2, 150)))
        assert cached(driver, request) == 50
        assert [each.snapshot.n_tokens for each in news(driver, SnapshotKept)] == [219]
        assert cached(driver, ask(driver, (*tokens(1, 200), *MORE), max_tokens=5)) == 200

    def test_nobody_saves_for_a_model_without_identity(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_ctx=256)
        hand_out(driver, endless.parent)
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 200))
        assert driver.news == []


class TestFailing:
    def test_where_it_cannot_be_written_the_request_goes_on(
        self, start: Start, tmp_path: Path
    ) -> None:
        driver, alone = start(), start()
        [spare] = hand_out(driver, tmp_path)
        ask(driver, tokens(1, 100))
        part_path(spare.path).unlink()
        part_path(spare.path).mkdir()
        request = ask(driver, tokens(2, 200))
        assert driver.text(request) == alone.answer(prompt(tokens(2, 200), max_tokens=20))
        assert [bad.path for bad in news(driver, SnapshotBad)] == [spare.path]

    def test_where_it_cannot_be_finished_that_is_told(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(writer: SnapshotWriter) -> None:
            writer.discard()
            raise SnapshotError("the disk is full of words")

        driver = start()
        [spare] = hand_out(driver, tmp_path)
        monkeypatch.setattr(SnapshotWriter, "finish", fail)
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 200))
        assert driver.news == [SnapshotBad(spare.path, "the disk is full of words")]


class TestWorth:
    """Of states so large that it takes time to move them."""

    @pytest.fixture
    def keeps(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., bool]:
        """Return whether a conversation is kept that takes so many seconds."""
        monkeypatch.setattr(spares_module, "SMALL_BYTES", 0)

        def keeps(computing: float | None, moving: float, *, hurried: bool = False) -> bool:
            driver = start()
            hand_out(driver, tmp_path)
            ask(driver, tokens(1, 100))
            if hurried:
                driver.submit(prompt(tokens(3, 20), max_tokens=60))
                driver.step()
            monkeypatch.setattr(Pace, "seconds", lambda self, n_tokens: computing)
            monkeypatch.setattr(Rate, "seconds", lambda self, size: moving)
            ask(driver, tokens(2, 120 if hurried else 200))
            return bool(news(driver, SnapshotKept))

        return keeps

    @pytest.mark.parametrize(
        ("computing", "moving", "kept"), [(1.0, 0.4, True), (1.0, 0.6, False), (None, 9.0, True)]
    )
    def test_moving_it_twice_must_be_faster_than_computing(
        self, keeps: Callable[..., bool], computing: float | None, moving: float, kept: bool
    ) -> None:
        assert keeps(computing, moving) == kept

    @pytest.mark.parametrize(
        ("computing", "moving", "kept"),
        [
            (1.0, 0.09, True),
            (1.0, 0.11, False),
            (10.0, 0.4, True),
            (10.0, 0.6, False),
            (100.0, 0.9, True),
            (100.0, 1.1, False),
            (None, 0.09, True),
            (None, 0.11, False),
        ],
    )
    def test_answers_under_way_wait_only_where_it_spares_much(
        self, keeps: Callable[..., bool], computing: float | None, moving: float, kept: bool
    ) -> None:
        assert keeps(computing, moving, hurried=True) == kept


class TestAside:
    """With a thread that does all but copy."""

    @pytest.fixture
    def done(self) -> SimpleQueue[Callable[[], None]]:
        return SimpleQueue()

    @pytest.fixture
    def driver(self, start: Start, done: SimpleQueue[Callable[[], None]]) -> Iterator[Driver]:
        driver = start(helper=Aside(lambda job, then: done.put(then)))
        yield driver
        driver.close()

    def test_the_file_is_finished_there(
        self, driver: Driver, done: SimpleQueue[Callable[[], None]], tmp_path: Path
    ) -> None:
        [spare] = hand_out(driver, tmp_path)
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 200), max_tokens=1)
        while not news(driver, SnapshotKept):
            assert not news(driver, SnapshotBad)
            done.get(timeout=10)()
        assert Path(spare.path).exists()
        assert cached(driver, ask(driver, tokens(1, 100))) == 99

    def test_memory_is_made_ready_for_the_longest_idle(
        self, driver: Driver, done: SimpleQueue[Callable[[], None]], tmp_path: Path
    ) -> None:
        [spare] = hand_out(driver, tmp_path)
        ask(driver, tokens(1, 100), max_tokens=1)
        assert done.empty(), "there is room for more"
        ask(driver, tokens(2, 80), max_tokens=1)
        done.get(timeout=10)()
        needed = snapshots(driver).infos()[0].state_bytes
        assert part_path(spare.path).stat().st_size == needed
        driver.run()
        assert done.empty(), "once is enough"

    def test_not_where_the_file_has_been_taken_away(
        self, driver: Driver, done: SimpleQueue[Callable[[], None]], tmp_path: Path
    ) -> None:
        [spare] = hand_out(driver, tmp_path)
        part_path(spare.path).unlink()
        ask(driver, tokens(1, 200))
        done.get(timeout=10)()
        assert list(tmp_path.iterdir()) == []

    def test_not_where_none_is_large_enough(
        self, driver: Driver, done: SimpleQueue[Callable[[], None]], tmp_path: Path
    ) -> None:
        hand_out(driver, tmp_path, limit=4096)
        ask(driver, tokens(1, 200))
        assert done.empty()

    def test_not_while_all_slots_are_busy(
        self, driver: Driver, done: SimpleQueue[Callable[[], None]], tmp_path: Path
    ) -> None:
        hand_out(driver, tmp_path)
        driver.submit(prompt(tokens(1, 200), max_tokens=20), credit=2)
        driver.run()
        assert done.empty()
