"""States to come back to cost memory: there is a limit, and the longest idle lose theirs first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from llm_router_mw.engine import checkpoints
from llm_router_mw.errors import SnapshotError
from llm_router_mw.wire import SnapshotUsed
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.engine.snapshots import IDENTITY, ask, cached, news, save_all, snapshots, tokens
from tests.support.tiny_architectures import write_tiny

Start = Callable[..., Driver]
STATE_BYTES = 20_000
"""A little more than the state of the model takes."""


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "mamba.gguf"
    return write_tiny(path, "mamba")


@pytest.fixture
def start(load: Load, recurrent: Path) -> Start:
    return partial(load, recurrent, n_ctx=2048, identity=IDENTITY)


def again(driver: Driver, number: int) -> int:
    """Return how much is spared of a prompt that is asked once more."""
    return cached(driver, ask(driver, tokens(number, 80)))


def test_within_the_limit_all_can_be_come_back_to(start: Start) -> None:
    driver = start()
    for number in range(4):
        ask(driver, tokens(number, 80))
    assert [again(driver, number) for number in range(4)] == [76] * 4


def test_beyond_it_the_longest_idle_cannot(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", 2 * STATE_BYTES)
    driver = start()
    for number in range(4):
        ask(driver, tokens(number, 80))
    assert [again(driver, number) for number in (3, 2)] == [76, 76]
    assert again(driver, 0) == 0


def test_one_is_always_kept(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", 1)
    driver = start()
    ask(driver, tokens(1, 80))
    ask(driver, tokens(2, 80))
    assert again(driver, 2) == 76
    assert again(driver, 1) == 0


def test_what_slots_share_counts_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", 4 * STATE_BYTES)
    driver = start(n_parallel=4)
    shared = tokens(1, 100)
    requests = [driver.submit(prompt((*shared, *tokens(n, 30)), max_tokens=5)) for n in (2, 3, 4)]
    driver.run()
    assert [cached(driver, request) for request in requests] == [0, 100, 100]
    # That of the shared beginning, and one of each: the fourth of them is kept too.
    assert cached(driver, ask(driver, (*shared, *tokens(2, 30)))) == 126
    assert cached(driver, ask(driver, (*shared, *tokens(7, 5)))) == 100


def test_files_hold_them(start: Start, tmp_path: Path) -> None:
    first, second = start(), start()
    ask(first, tokens(1, 80))
    [saved] = save_all(first, tmp_path)
    # The state, and the checkpoint.
    assert saved.size_bytes > 2 * 19_000
    second.engine.offers.offer([saved], [])
    given = (*tokens(1, 78), *tokens(2, 30))
    request, alone = ask(second, given), start()
    assert cached(second, request) == 76
    assert second.text(request) == alone.answer(prompt(given, max_tokens=20))
    assert news(second, SnapshotUsed)[0].n_tokens == 76
    # It is here now, and can be saved and come back to from here.
    assert again(second, 1) == 76
    assert any(info.state_bytes > 2 * 19_000 for info in snapshots(second).infos())


def test_before_the_first_of_them_there_is_nothing(start: Start, tmp_path: Path) -> None:
    first, second = start(), start()
    ask(first, tokens(1, 80))
    second.engine.offers.offer(save_all(first, tmp_path), [])
    assert cached(second, ask(second, (*tokens(1, 70), *tokens(2, 30)))) == 0
    assert second.news == []


class TestSeparateParts:
    """llama.cpp copies from one part of a split context to another not before the next step."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def windowed(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A model with a sliding window."""
        path: Path = tmp_path_factory.mktemp("models") / "gemma3.gguf"
        return write_tiny(path, "gemma3")

    def test_a_copy_goes_on_from_a_checkpoint(self, load: Load, windowed: Path) -> None:
        start = partial(load, windowed, kv_unified=False, n_ctx=4096, n_batch=16)
        driver, alone = start(), start()
        beginning = tokens(1, 60)
        ask(driver, beginning)
        # So long that its window has left the beginning behind.
        ask(driver, (*beginning, *tokens(2, 600)))
        given = (*beginning, *tokens(3, 30))
        request = ask(driver, given, max_tokens=40)
        assert cached(driver, request) == 56
        assert driver.text(request) == alone.answer(prompt(given, max_tokens=40))

    def test_what_is_still_to_be_copied_is_not_saved(
        self, load: Load, endless: Path, tmp_path: Path
    ) -> None:
        driver, other = (
            load(endless, kv_unified=False, n_ctx=4096, identity=IDENTITY) for _ in range(2)
        )
        ask(other, tokens(8, 100))
        saved = save_all(other, tmp_path, "other")
        ask(driver, tokens(1, 300))
        [info] = snapshots(driver).infos()
        copying = driver.submit(prompt((*tokens(1, 100), *tokens(2, 30)), max_tokens=5))
        # Nothing is computed: the one who shall get the copy is not there any more.
        driver.engine._loop._admit()  # type: ignore[union-attr]
        driver.engine.cancel(copying)
        assert snapshots(driver).infos() == []
        with pytest.raises(SnapshotError):
            snapshots(driver).save(info.sequence, str(tmp_path / "early"))
        driver.engine.offers.offer(saved, [])
        assert cached(driver, ask(driver, (*tokens(8, 100), *tokens(2, 9)))) == 0
        assert cached(driver, ask(driver, (*tokens(8, 100), *tokens(3, 9)))) == 100
        other.engine.offers.offer(save_all(driver, tmp_path), [])
        given = (*tokens(1, 300), *tokens(7, 20))
        here, there = ask(driver, given), ask(other, given)
        assert other.text(there) == driver.text(here)
        assert cached(other, there) == 300
