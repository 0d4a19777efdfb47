"""A conversation that was saved goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llm_router_mw.engine import snapshots as snapshots_module
from llm_router_mw.engine.pace import Pace
from llm_router_mw.engine.transfer import Rate
from llm_router_mw.errors import SnapshotError
from llm_router_mw.snapshot_file import open_snapshot, read_header, write_snapshot
from llm_router_mw.types import EmbedTask
from llm_router_mw.wire import SnapshotBad, SnapshotUsed
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.engine.snapshots import IDENTITY, ask, cached, news, save_all, snapshots, tokens
from tests.support.tiny_architectures import ARCHITECTURES, write_tiny
from tests.support.tiny_models import write_tiny_llama

Start = Callable[..., Driver]

FIRST = tokens(1, 100)
MORE = tokens(9, 30)
SMALL = 48
"""Rows of a batch: from 64 on llama.cpp attends with another kernel, whose logits differ."""
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"kv_unified": False, "n_ctx": 2048},
    {"flash_attn": "off"},
    {"n_parallel": 1},
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("architectures") / f"{request.param}.gguf"
    return write_tiny(path, request.param)


@pytest.fixture(scope="module")
def quantisable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with heads as large as a block of quantised values."""
    path = tmp_path_factory.mktemp("models") / "quantisable.gguf"
    return write_tiny_llama(path, n_embd=128)


@pytest.fixture
def start(load: Load, endless: Path) -> Start:
    """Load a model whose conversations may be saved."""
    return partial(load, endless, identity=IDENTITY)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_architecture_goes_on_alike(
    load: Load, model: Path, layout: dict[str, Any], tmp_path: Path
) -> None:
    layout = {"n_ctx": 1024, **layout, "identity": IDENTITY}
    never_swapped, other = load(model, **layout), load(model, **layout)
    ask(never_swapped, FIRST, max_tokens=30)
    other.engine.offers.offer(save_all(never_swapped, tmp_path), [])
    history = FIRST
    for turn in range(3):
        history += tokens(5 + turn, 30)
        here, there = (ask(each, history, max_tokens=30) for each in (never_swapped, other))
        assert other.text(there) == never_swapped.text(here)
        # A saved window ends with the last token: from within, a checkpoint is gone on from.
        assert 90 < cached(other, there) <= cached(never_swapped, here)
    assert len(news(other, SnapshotUsed)) == 1, "then it is in the context"
    assert not news(other, SnapshotBad)


@pytest.mark.parametrize("flash", ["on", "off"])
def test_quantised_states_go_on_alike(
    load: Load, quantisable: Path, flash: str, tmp_path: Path
) -> None:
    type_v = "q8_0" if flash == "on" else "f16"
    layout = {"type_k": "q8_0", "type_v": type_v, "flash_attn": flash, "identity": IDENTITY}
    never_swapped, other = load(quantisable, **layout), load(quantisable, **layout)
    ask(never_swapped, FIRST, max_tokens=30)
    other.engine.offers.offer(save_all(never_swapped, tmp_path), [])
    here, there = (ask(each, (*FIRST, *MORE)) for each in (never_swapped, other))
    assert other.text(there) == never_swapped.text(here)
    assert cached(other, there) == cached(never_swapped, here) == len(FIRST)


class TestWhatIsListed:
    def test_idle_conversations_longest_idle_first(self, start: Start) -> None:
        driver = start()
        ask(driver, tokens(1, 100))
        ask(driver, tokens(2, 80))
        first, second = snapshots(driver).infos()
        # The last token of an answer is never computed.
        assert (first.n_tokens, second.n_tokens) == (119, 99)
        assert first.used_seconds_ago >= second.used_seconds_ago >= 0
        assert first.key == second.key
        assert first.prefill_tokens_per_second is not None
        assert first.prefill_tokens_per_second > 0

    def test_the_size_is_that_of_the_file(self, start: Start, tmp_path: Path) -> None:
        driver = start()
        ask(driver, FIRST)
        [info] = snapshots(driver).infos()
        [saved] = save_all(driver, tmp_path)
        assert info.state_bytes == saved.size_bytes == Path(saved.path).stat().st_size
        assert (saved.key, saved.blocks, saved.identity) == (info.key, info.blocks, IDENTITY)
        assert Path(saved.path).stat().st_mode & 0o777 == 0o600

    def test_a_longer_one_covers_a_shorter_one(self, start: Start, tmp_path: Path) -> None:
        driver = start(n_parallel=1)
        ask(driver, FIRST)
        [short] = save_all(driver, tmp_path, "short")
        ask(driver, (*FIRST, *tokens(3, 100)))
        [long] = save_all(driver, tmp_path, "long")
        assert long.covers(short)
        assert not short.covers(long)

    def test_little_is_not_worth_a_file(self, start: Start) -> None:
        driver = start()
        ask(driver, tokens(1, 40))
        assert snapshots(driver).infos() == []

    def test_what_another_slot_begins_with_is_listed_once(self, start: Start) -> None:
        driver = start()
        shared = tokens(1, 300)
        ask(driver, shared, max_tokens=1)
        ask(driver, (*shared[:100], *tokens(2, 100)))
        ask(driver, (*shared, *tokens(3, 50)), max_tokens=1)
        assert sorted(info.n_tokens for info in snapshots(driver).infos()) == [219, 350]

    def test_who_is_busy_is_not(self, start: Start) -> None:
        driver = start()
        driver.submit(prompt(FIRST, max_tokens=300))
        driver.step()
        assert snapshots(driver).infos() == []
        with pytest.raises(SnapshotError, match="nothing that could be saved"):
            snapshots(driver).save(0, "/nowhere")

    def test_without_an_identity_nothing_is(self, load: Load, endless: Path) -> None:
        driver = load(endless)
        ask(driver, FIRST)
        assert snapshots(driver).infos() == []
        with pytest.raises(SnapshotError, match="nothing that could be saved"):
            snapshots(driver).save(0, "/nowhere")

    def test_embeddings_keep_nothing(self, load: Load, endless: Path) -> None:
        driver = load(endless, identity=IDENTITY, pooling="mean")
        driver.submit(EmbedTask(inputs=("the fox",)))
        driver.run()
        assert driver.engine.snapshots is None

    def test_asleep_there_is_nothing_to_ask(self, start: Start) -> None:
        driver = start()
        driver.engine.retire()
        driver.engine.sleep("context")
        assert driver.engine.snapshots is None


class TestWhoMayUseIt:
    def test_it_is_told_what_was_used(self, start: Start, tmp_path: Path) -> None:
        first, second = start(), start()
        ask(first, FIRST)
        [saved] = save_all(first, tmp_path)
        second.engine.offers.offer([saved], [])
        assert cached(second, ask(second, (*FIRST, *MORE))) == 100
        [used] = news(second, SnapshotUsed)
        assert (used.path, used.n_tokens) == (saved.path, 100)
        assert used.seconds > 0

    @pytest.mark.parametrize("whose", ["bob", ""])
    def test_not_those_of_another_namespace(self, start: Start, tmp_path: Path, whose: str) -> None:
        first, second = start(), start()
        ask(first, FIRST, cache_namespace="alice")
        [saved] = save_all(first, tmp_path)
        assert "alice" not in saved.key
        second.engine.offers.offer([saved], [])
        assert cached(second, ask(second, FIRST, cache_namespace=whose)) == 0
        assert second.news == []
        assert cached(second, ask(second, (*FIRST, *MORE), cache_namespace="alice")) == 100

    def test_with_a_shared_prefix_all_of_them(self, start: Start, tmp_path: Path) -> None:
        first, second = start(share_prefix=True), start(share_prefix=True)
        ask(first, FIRST, cache_namespace="alice")
        second.engine.offers.offer(save_all(first, tmp_path), [])
        assert cached(second, ask(second, FIRST, cache_namespace="bob")) == 99

    def test_not_who_wants_no_cache(self, start: Start, tmp_path: Path) -> None:
        first, second = start(), start()
        ask(first, FIRST)
        second.engine.offers.offer(save_all(first, tmp_path), [])
        assert cached(second, ask(second, FIRST, cache_prompt=False)) == 0

    def test_not_another_model(self, start: Start, tmp_path: Path) -> None:
        first, other, none = start(), start(identity="another"), start(identity="")
        ask(first, FIRST)
        for driver in (other, none):
            driver.engine.offers.offer(save_all(first, tmp_path), [])
            assert cached(driver, ask(driver, FIRST)) == 0
            assert driver.news == []

    def test_what_was_withdrawn_is_not_used(self, start: Start, tmp_path: Path) -> None:
        first, second = start(), start()
        ask(first, FIRST)
        [saved] = save_all(first, tmp_path)
        second.engine.offers.offer([saved], [])
        second.engine.offers.withdraw([saved.path, "what nobody knows"])
        assert cached(second, ask(second, FIRST)) == 0
        assert second.news == []


class TestWhichIsUsed:
    def test_the_one_with_the_longest_common_beginning(self, start: Start, tmp_path: Path) -> None:
        first, second = start(n_ctx=2048), start(n_ctx=2048)
        ask(first, (*FIRST, *tokens(2, 300)))
        ask(first, (*FIRST, *tokens(3, 100)))
        ask(first, tokens(4, 400))
        saved = save_all(first, tmp_path)
        second.engine.offers.offer(saved, [])
        given = (*FIRST, *tokens(3, 100)[:80], *tokens(7, 40))
        assert cached(second, ask(second, given)) == 180
        [used] = news(second, SnapshotUsed)
        assert used.path == saved[1].path

    def test_what_is_in_the_context_is_better_than_a_file(
        self, start: Start, tmp_path: Path
    ) -> None:
        driver = start()
        ask(driver, FIRST)
        driver.engine.offers.offer(save_all(driver, tmp_path), [])
        assert cached(driver, ask(driver, (*FIRST, *MORE))) == 100
        assert driver.news == []

    def test_a_little_more_is_not_worth_it(self, start: Start, tmp_path: Path) -> None:
        first, second = start(), start()
        ask(first, FIRST)
        second.engine.offers.offer(save_all(first, tmp_path), [])
        ask(second, FIRST[:50], max_tokens=1)
        assert cached(second, ask(second, (*FIRST, *MORE))) == 50
        assert second.news == []

    def test_who_could_share_more_with_another_request_waits_for_it(
        self, start: Start, tmp_path: Path
    ) -> None:
        first, second = start(), start(n_batch=64)
        ask(first, FIRST)
        second.engine.offers.offer(save_all(first, tmp_path), [])
        longer = (*FIRST, *tokens(3, 200))
        requests = [second.submit(prompt((*longer, *tokens(n, 9)), max_tokens=5)) for n in (4, 5)]
        second.run()
        assert [cached(second, request) for request in requests] == [100, 300]

    @pytest.mark.parametrize(
        ("computing", "restoring", "spared"),
        [(1.0, 0.9, 100), (1.0, 1.1, 0), (None, 9.0, 100)],
    )
    def test_a_large_one_must_be_restored_faster_than_computed(
        self,
        start: Start,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        computing: float | None,
        restoring: float,
        spared: int,
    ) -> None:
        first, second = start(), start()
        ask(first, FIRST)
        second.engine.offers.offer(save_all(first, tmp_path), [])
        monkeypatch.setattr(snapshots_module, "SMALL_BYTES", 0)
        monkeypatch.setattr(Pace, "seconds", lambda self, n_tokens: computing)
        monkeypatch.setattr(Rate, "seconds", lambda self, size: restoring)
        assert cached(second, ask(second, (*FIRST, *MORE))) == spared

    def test_one_that_does_not_fit_the_context_is_not(self, start: Start, tmp_path: Path) -> None:
        first, second = start(n_ctx=1024), start(n_ctx=512)
        ask(first, tokens(1, 600))
        second.engine.offers.offer(save_all(first, tmp_path), [])
        assert cached(second, ask(second, tokens(1, 300))) == 0
        assert second.news == []

    def test_where_others_need_the_room_it_is_computed(self, start: Start, tmp_path: Path) -> None:
        first, second = start(n_ctx=512), start(n_ctx=512)
        ask(first, tokens(1, 400))
        second.engine.offers.offer(save_all(first, tmp_path), [])
        running = second.submit(prompt(tokens(2, 150), max_tokens=80))
        second.step()
        # The whole of it does not fit beside the other, what is wanted of it would.
        assert cached(second, ask(second, (*tokens(1, 100), *MORE))) == 0
        assert second.finish(running).usage.completion_tokens == 80

    def test_idle_conversations_give_way(self, start: Start, tmp_path: Path) -> None:
        first, second = start(n_ctx=512), start(n_ctx=512)
        ask(first, tokens(1, 300))
        second.engine.offers.offer(save_all(first, tmp_path), [])
        ask(second, tokens(2, 300))
        assert cached(second, ask(second, (*tokens(1, 300), *MORE))) == 300

    def test_another_number_of_sequences_does_not_matter(
        self, start: Start, tmp_path: Path
    ) -> None:
        first = start(n_parallel=8, n_ctx=1024, n_batch=SMALL)
        second, alone = start(n_parallel=2, n_ctx=300, n_batch=SMALL), start(n_batch=SMALL)
        for number in range(6):
            ask(first, tokens(number, 70))
        second.engine.offers.offer(save_all(first, tmp_path), [])
        for number in (5, 0, 3):
            given = (*tokens(number, 70), *MORE)
            request = ask(second, given)
            assert cached(second, request) == 70
            assert second.text(request) == alone.answer(prompt(given, max_tokens=20))

    def test_tokens_that_are_shared_are_saved_with_each(self, start: Start, tmp_path: Path) -> None:
        first, second, alone = (start(n_ctx=1024, n_batch=SMALL) for _ in range(3))
        given = [(*tokens(1, 200), *tokens(n, 70)) for n in (2, 3, 4)]
        requests = [first.submit(prompt(each, max_tokens=5)) for each in given]
        first.run()
        assert sum(cached(first, request) for request in requests) == 400
        saved = save_all(first, tmp_path)
        assert len(saved) == 3
        for each in given:
            second.engine.offers.offer(saved, [])
            request = ask(second, (*each, *MORE))
            # The first is in the context by then.
            assert cached(second, request) >= 200
            assert second.text(request) == alone.answer(prompt((*each, *MORE), max_tokens=20))

    def test_a_request_that_had_to_leave_finds_more_than_it_brought(
        self, start: Start, tmp_path: Path
    ) -> None:
        first, second = start(n_ctx=1024, n_batch=SMALL), start(n_parallel=2, n_batch=SMALL)
        request = first.submit(prompt(FIRST, max_tokens=300))
        first.run()
        expected = first.text(request)
        second.engine.offers.offer(save_all(first, tmp_path), [])
        other = second.submit(prompt(tokens(2, 200), max_tokens=150))
        second.step()
        late = second.submit(prompt(FIRST, max_tokens=300))
        second.run()
        assert second.text(late) == expected
        assert second.finish(other).usage.completion_tokens == 150


Damage = Callable[[Path], None]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


def corrupt_state(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def corrupt_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def of_another_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8] ^= 2
    path.write_bytes(data)


def no_snapshot(path: Path) -> None:
    path.write_bytes(b"hello" * 5000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def copied(path: Path, **changes: Any) -> None:
    """Write the snapshot anew, with something else in its header or its state."""
    with open_snapshot(path) as file:
        header, state = file.header, bytes(file.part(0))
    fields: dict[str, Any] = {
        "identity": header.identity,
        "key": header.key,
        "tokens": header.tokens,
        "blocks": header.blocks,
        "created_at": header.created_at,
        "state": state,
    } | changes
    state = fields.pop("state")
    write_snapshot(path, [("state", header.n_tokens, state)], **fields)


DAMAGES: dict[str, Damage] = {
    "missing": Path.unlink,
    "cut short": cut_short,
    "corrupt state": corrupt_state,
    "corrupt header": corrupt_header,
    "another version": of_another_version,
    "no snapshot": no_snapshot,
    "empty": empty,
    "another model": lambda path: copied(path, identity="another"),
    "another user": lambda path: copied(path, key="another"),
    "other blocks": lambda path: copied(path, blocks=bytes(8)),
    "too few tokens": lambda path: copied(path, tokens=read_header(path).tokens[:-4]),
    "no state": lambda path: copied(path, state=bytes(64)),
}


class TestBadFiles:
    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_it_is_told_of_once_and_the_request_goes_on(
        self,
        start: Start,
        tmp_path: Path,
        damage: Damage,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        first, second, alone = start(), start(n_batch=SMALL), start(n_batch=SMALL)
        ask(first, FIRST)
        [saved] = save_all(first, tmp_path)
        damage(Path(saved.path))
        second.engine.offers.offer([saved], [])
        for given in ((*FIRST, *MORE), (*FIRST, *tokens(3, 40))):
            request = ask(second, given)
            assert second.text(request) == alone.answer(prompt(given, max_tokens=20))
        [bad] = second.news
        assert isinstance(bad, SnapshotBad)
        assert bad.path == saved.path
        assert bad.reason
        assert len([each for each in caplog.records if each.name.endswith("engine")]) == 1

    def test_a_state_of_other_tokens_is_not_taken(self, start: Start, tmp_path: Path) -> None:
        first, second = start(), start()
        ask(first, FIRST)
        ask(first, tokens(2, 100), max_tokens=10)
        long, short = save_all(first, tmp_path)
        with open_snapshot(short.path) as file:
            state = bytes(file.part(0))
        copied(Path(long.path), state=state)
        second.engine.offers.offer([replace(long, size_bytes=Path(long.path).stat().st_size)], [])
        assert cached(second, ask(second, (*FIRST, *MORE))) == 0
        assert "does not take" in news(second, SnapshotBad)[0].reason

    def test_the_next_best_takes_its_place(self, start: Start, tmp_path: Path) -> None:
        first, second = start(n_parallel=1), start()
        ask(first, FIRST)
        [short] = save_all(first, tmp_path, "short")
        ask(first, (*FIRST, *tokens(3, 100)))
        [long] = save_all(first, tmp_path, "long")
        corrupt_state(Path(long.path))
        second.engine.offers.offer([short, long], [])
        assert cached(second, ask(second, (*FIRST, *tokens(3, 100), *MORE))) == 100
        assert [each.path for each in news(second, SnapshotBad)] == [long.path]
        assert [each.path for each in news(second, SnapshotUsed)] == [short.path]

    def test_a_file_that_changed_since_it_was_looked_at(self, start: Start, tmp_path: Path) -> None:
        first, second = start(n_parallel=1), start(n_ctx=512)
        ask(first, tokens(1, 300))
        [saved] = save_all(first, tmp_path)
        second.engine.offers.offer([saved], [])
        second.submit(prompt(tokens(2, 200), max_tokens=20))
        second.step()
        late = second.submit(prompt((*tokens(1, 300), *MORE), max_tokens=20))
        second.step()
        assert second.news == [], "it waits for room"
        copied(Path(saved.path), created_at=1.0)
        second.run()
        assert cached(second, late) == 0
        assert "not what it was" in news(second, SnapshotBad)[0].reason

    def test_one_that_cannot_be_cut_is_given_up(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = start(), start()
        ask(first, FIRST)
        second.engine.offers.offer(save_all(first, tmp_path), [])
        monkeypatch.setattr(
            "llm_router_mw.engine.context.Context.truncate", lambda self, sequence, length: False
        )
        request = ask(second, (*FIRST, *MORE))
        assert cached(second, request) == 0
        assert "could not cut" in news(second, SnapshotBad)[0].reason


class TestSavingFails:
    def test_llama_cpp_fails(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver = start()
        ask(driver, FIRST)
        monkeypatch.setattr(
            "llm_router_mw.engine.context.Context.save_whole", lambda self, sequence, target: False
        )
        with pytest.raises(SnapshotError, match=r"llama\.cpp could not save"):
            save_all(driver, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_there_is_no_such_folder(self, start: Start, tmp_path: Path) -> None:
        driver = start()
        ask(driver, FIRST)
        with pytest.raises(SnapshotError, match="cannot be used"):
            save_all(driver, tmp_path / "nowhere")
        assert cached(driver, ask(driver, (*FIRST, *MORE))) == 100
