"""Requests that begin alike share what has been computed, and nobody notices but the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.types import ContentDelta, ProgressDelta
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.support.tiny_models import FIRST_PIECE

Tokens = tuple[int, ...]


def tokens(start: int, length: int) -> Tokens:
    return tuple(FIRST_PIECE + (start * 7 + step * step) % 100 for step in range(length))


SYSTEM = tokens(1, 100)


def cached(driver: Driver, request: int) -> int:
    return driver.finish(request).usage.cached_tokens


def ask(driver: Driver, given: Tokens, **fields: object) -> int:
    request = driver.submit(prompt(given, **{"max_tokens": 10, **fields}))
    driver.run()
    return request


def test_the_same_prompt_again_computes_one_token(load: Load, endless: Path) -> None:
    driver = load(endless)
    first, second = ask(driver, SYSTEM), ask(driver, SYSTEM)
    assert cached(driver, first) == 0
    assert cached(driver, second) == len(SYSTEM) - 1
    assert driver.text(first) == driver.text(second)


def test_a_conversation_goes_on_where_it_was(load: Load, endless: Path) -> None:
    driver = load(endless)
    first = ask(driver, SYSTEM)
    # As a client would: the answer's tokens are not known, so the prompt only shares the beginning.
    longer = (*SYSTEM, *tokens(5, 20))
    second = ask(driver, longer)
    assert cached(driver, second) >= len(SYSTEM)
    assert driver.text(second) == load(endless).answer(prompt(longer, max_tokens=10))
    assert cached(driver, first) == 0


def test_a_common_beginning_is_copied_from_a_request_under_way(load: Load, endless: Path) -> None:
    driver = load(endless)
    running = driver.submit(prompt((*SYSTEM, *tokens(2, 5)), max_tokens=50))
    driver.step()
    late = (*SYSTEM, *tokens(3, 5))
    other = driver.submit(prompt(late, max_tokens=10))
    driver.run()
    assert cached(driver, other) == len(SYSTEM)
    assert driver.text(other) == load(endless).answer(prompt(late, max_tokens=10))
    assert driver.finish(running).usage.completion_tokens == 50


def test_those_who_come_at_once_wait_for_the_first(load: Load, endless: Path) -> None:
    driver = load(endless, n_parallel=8, n_ctx=2048)
    prompts = [(*SYSTEM, *tokens(n, 4)) for n in range(2, 10)]
    requests = [driver.submit(prompt(given, max_tokens=5)) for given in prompts]
    driver.run()
    assert sorted(cached(driver, request) for request in requests) == [0] + [len(SYSTEM)] * 7
    # One prompt in full, and four tokens of each other one.
    assert sum(driver.rows) == len(SYSTEM) + 8 * 4 + 8 * 4
    for given, request in zip(prompts, requests, strict=True):
        assert driver.text(request) == load(endless).answer(prompt(given, max_tokens=5))


def test_if_the_first_one_leaves_another_takes_its_place(load: Load, endless: Path) -> None:
    driver = load(endless, n_batch=32)
    first = driver.submit(prompt((*SYSTEM, *tokens(2, 4)), max_tokens=5))
    second = driver.submit(prompt((*SYSTEM, *tokens(3, 4)), max_tokens=5))
    driver.step()
    driver.engine.cancel(first)
    driver.run()
    assert driver.finish(second).usage.completion_tokens == 5
    assert cached(driver, second) == 32


def test_shared_tokens_take_room_once(load: Load, endless: Path) -> None:
    driver = load(endless, n_parallel=8, n_ctx=256)
    shared = tokens(1, 150)
    requests = [driver.submit(prompt((*shared, n + FIRST_PIECE), max_tokens=4)) for n in range(8)]
    driver.run()
    assert max(driver.rows[1:]) >= 5, "several of them ran together"
    assert all(driver.over(request) for request in requests)


def test_other_namespaces_see_nothing(load: Load, endless: Path) -> None:
    driver = load(endless)
    ask(driver, SYSTEM, cache_namespace="alice")
    assert cached(driver, ask(driver, SYSTEM, cache_namespace="bob")) == 0
    assert cached(driver, ask(driver, SYSTEM)) == 0
    assert cached(driver, ask(driver, SYSTEM, cache_namespace="alice")) == len(SYSTEM) - 1


def test_who_wants_no_cache_gets_none(load: Load, endless: Path) -> None:
    driver = load(endless)
    ask(driver, SYSTEM)
    assert cached(driver, ask(driver, SYSTEM, cache_prompt=False)) == 0


def test_what_is_kept_gives_way_to_what_is_needed(load: Load, endless: Path) -> None:
    driver = load(endless, n_ctx=256)
    for start in range(1, 5):
        ask(driver, tokens(start, 50))
    big = ask(driver, tokens(9, 240))
    assert driver.finish(big).usage.completion_tokens == 10
    assert cached(driver, ask(driver, tokens(1, 50))) == 0


def test_the_rest_of_a_conversation_gives_way_but_not_its_beginning(
    load: Load, endless: Path
) -> None:
    driver = load(endless, n_ctx=256)
    ask(driver, (*SYSTEM, *tokens(2, 140)))
    other = ask(driver, (*SYSTEM, *tokens(3, 130)))
    assert cached(driver, other) == len(SYSTEM)
    assert driver.finish(other).usage.completion_tokens == 10


def test_the_oldest_is_forgotten_first(load: Load, endless: Path) -> None:
    driver = load(endless, n_parallel=2)
    ask(driver, tokens(1, 50))
    ask(driver, tokens(2, 50))
    ask(driver, tokens(1, 50))
    ask(driver, tokens(3, 50))
    assert cached(driver, ask(driver, tokens(1, 50))) == 49
    assert cached(driver, ask(driver, tokens(2, 50))) == 0


def test_a_long_conversation_survives_one_that_begins_alike(load: Load, endless: Path) -> None:
    driver = load(endless)
    long = (*SYSTEM[:20], *tokens(5, 150))
    ask(driver, long)
    ask(driver, (*SYSTEM[:20], *tokens(6, 30)))
    assert cached(driver, ask(driver, long)) == len(long) - 1


@pytest.mark.parametrize("unified", [True, False])
def test_separate_parts_share_by_copying(load: Load, endless: Path, unified: bool) -> None:
    driver = load(endless, n_parallel=4, n_ctx=1024, kv_unified=unified)
    prompts = [(*SYSTEM, *tokens(n, 4)) for n in range(2, 6)]
    requests = [driver.submit(prompt(given, max_tokens=8)) for given in prompts]
    driver.run()
    assert sum(cached(driver, request) for request in requests) == 3 * len(SYSTEM)
    for given, request in zip(prompts, requests, strict=True):
        assert driver.text(request) == load(endless).answer(prompt(given, max_tokens=8))


def test_separate_parts_have_their_own_size(load: Load, endless: Path) -> None:
    driver = load(endless, n_parallel=4, n_ctx=1024, kv_unified=False)
    assert driver.info.n_ctx == 256
    failure = driver.failure(ask(driver, tokens(1, 256)))
    assert failure.kind == "ContextExceededError"


def test_progress_is_told_to_those_who_ask(load: Load, endless: Path) -> None:
    driver = load(endless, n_batch=40)
    request = ask(driver, SYSTEM, return_progress=True)
    told = [delta for delta in driver.deltas[request] if isinstance(delta, ProgressDelta)]
    assert [each.processed for each in told] == [0, 40, 80, 100]
    assert {each.total for each in told} == {100}
    again = ask(driver, SYSTEM, return_progress=True)
    first = driver.deltas[again][0]
    assert isinstance(first, ProgressDelta)
    assert first.cached == first.processed == 99
    silent = ask(driver, SYSTEM)
    assert isinstance(driver.deltas[silent][0], ContentDelta)


class TestShift:
    def test_an_answer_goes_on_beyond_the_context(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_ctx=256, context_shift=True)
        request = ask(driver, tokens(1, 50), max_tokens=600)
        assert driver.finish(request).usage.completion_tokens == 600

    def test_without_it_the_answer_ends(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_ctx=256)
        request = ask(driver, tokens(1, 50), max_tokens=600)
        assert driver.finish(request).usage.completion_tokens == 206

    def test_what_is_to_be_kept_stays(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_ctx=256, context_shift=True)
        ask(driver, tokens(1, 50), max_tokens=400, n_keep=-1)
        again = ask(driver, tokens(1, 50))
        assert cached(driver, again) == 49

    def test_tokens_that_others_share_are_not_moved(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_ctx=512, context_shift=True)
        steady = driver.submit(prompt((*SYSTEM, *tokens(2, 5)), max_tokens=200))
        driver.step()
        shifting = driver.submit(prompt((*SYSTEM, *tokens(3, 5)), max_tokens=600))
        driver.run()
        assert driver.finish(shifting).usage.completion_tokens == 600
        alone = load(endless, n_ctx=512)
        expected = alone.answer(prompt((*SYSTEM, *tokens(2, 5)), max_tokens=200))
        assert driver.text(steady) == expected
