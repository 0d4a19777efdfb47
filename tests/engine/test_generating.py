"""Continuous batching over one shared context."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.engine import pace
from llm_router_mw.engine.context import Context
from llm_router_mw.engine.generating import EngineBrokenError
from llm_router_mw.errors import (
    ContextExceededError,
    InvalidRequestError,
    NotSupportedError,
    error_from,
)
from llm_router_mw.types import EmbedTask, FinishDelta
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.engine.reference import greedy
from tests.support.tiny_models import FIRST_PIECE

N_CTX = 256
"""The smallest context that llama.cpp makes."""


def tokens(start: int, length: int) -> tuple[int, ...]:
    """Return a prompt of *length* tokens, different for each *start*."""
    return tuple(FIRST_PIECE + (start * 7 + step * step) % 100 for step in range(length))


def alone(load: Load, path: Path, prompts: list[tuple[int, ...]], max_tokens: int) -> list[str]:
    """Return what each prompt gives when nothing else runs."""
    driver = load(path, n_ctx=N_CTX)
    return [driver.answer(prompt(given, max_tokens=max_tokens)) for given in prompts]


def test_greedy_text_is_that_of_a_plain_loop(load: Load, endless: Path) -> None:
    expected = greedy(endless, tokens(1, 20), 60)
    assert load(endless).answer(prompt(tokens(1, 20), max_tokens=60)) == expected


def test_requests_share_a_batch(load: Load, endless: Path) -> None:
    driver = load(endless, n_parallel=6)
    requests = [driver.submit(prompt(tokens(n, 5), max_tokens=10)) for n in range(6)]
    driver.run()
    # One step takes all prompts in, nine more give each request a token.
    assert driver.rows == [30] + [6] * 9
    assert [driver.finish(request).reason for request in requests] == ["length"] * 6


def test_batched_requests_do_not_change_each_other(load: Load, endless: Path) -> None:
    prompts = [tokens(n, 5 + n) for n in range(4)]
    driver = load(endless)
    requests = [driver.submit(prompt(given, max_tokens=40)) for given in prompts]
    driver.run()
    assert [driver.text(request) for request in requests] == alone(load, endless, prompts, 40)


def test_a_request_joins_while_another_is_under_way(load: Load, endless: Path) -> None:
    prompts = [tokens(1, 5), tokens(2, 9)]
    driver = load(endless)
    first = driver.submit(prompt(prompts[0], max_tokens=30))
    for _ in range(10):
        driver.step()
    second = driver.submit(prompt(prompts[1], max_tokens=30))
    driver.run()
    assert driver.rows[9:12] == [1, 1 + 9, 2]
    texts = [driver.text(first), driver.text(second)]
    assert texts == alone(load, endless, prompts, 30)


def test_more_requests_than_sequences_wait_in_order(load: Load, endless: Path) -> None:
    driver = load(endless, n_parallel=2)
    requests = [driver.submit(prompt(tokens(n, 3), max_tokens=4)) for n in range(5)]
    driver.until(lambda: driver.over(requests[1]))
    assert not driver.deltas[requests[2]]
    driver.until(lambda: driver.over(requests[3]))
    assert not driver.deltas[requests[4]]
    driver.run()
    assert max(driver.rows) == 6


def test_a_long_prompt_is_taken_in_pieces_beside_running_requests(
    load: Load, endless: Path
) -> None:
    prompts = [tokens(1, 3), tokens(2, 70)]
    driver = load(endless, n_batch=32)
    first = driver.submit(prompt(prompts[0], max_tokens=20))
    driver.step()
    second = driver.submit(prompt(prompts[1], max_tokens=20))
    driver.run()
    # 31 + 31 + 8 tokens of the prompt, each time beside one of the running request.
    assert driver.rows[1:5] == [32, 32, 9, 2]
    assert [driver.text(first), driver.text(second)] == alone(load, endless, prompts, 20)


def test_long_prompts_are_taken_one_after_the_other(load: Load, endless: Path) -> None:
    prompts = [tokens(1, 70), tokens(2, 70)]
    driver = load(endless, n_batch=32)
    requests = [driver.submit(prompt(given, max_tokens=5)) for given in prompts]
    driver.run()
    assert driver.rows == [32, 32, 6 + 26, 1 + 31, 1 + 13, 2, 2, 1, 1]
    texts = [driver.text(request) for request in requests]
    assert texts == alone(load, endless, prompts, 5)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each row seem to take 10 ms, so that steps are sized as on a slow machine."""
    now = 0.0
    compute = Context.compute

    def slowly(self: Context) -> int:
        nonlocal now
        now += 0.01 * self.n_rows
        return compute(self)

    monkeypatch.setattr(pace, "perf_counter", lambda: now)
    monkeypatch.setattr(Context, "compute", slowly)


@pytest.mark.usefixtures("slow")
class TestPace:
    """What a step takes of prompts on a machine where a tenth of a second is ten rows."""

    def test_a_long_prompt_leaves_several_answers_their_pace(
        self, load: Load, endless: Path
    ) -> None:
        driver = load(endless, n_parallel=5)
        for n in range(4):
            driver.submit(prompt(tokens(n, 20), max_tokens=40))
        for _ in range(3):
            driver.step()
        driver.submit(prompt(tokens(5, 100), max_tokens=2))
        driver.run()
        # 28 rows of it beside the four answers.
        assert driver.rows[:8] == [80, 4, 4, 32, 32, 32, 4 + 16, 5]

    def test_readers_that_pause_do_not_come_back_behind_a_long_step(
        self, load: Load, endless: Path
    ) -> None:
        driver = load(endless)
        for n in range(2):
            driver.submit(prompt(tokens(n, 20)), credit=3)
        driver.run()
        driver.submit(prompt(tokens(5, 70), max_tokens=2))
        driver.run()
        assert driver.rows == [40, 2, 2, 32, 32, 6, 1]


def test_rows_are_sorted_by_sequence(
    load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(endless, n_parallel=2)
    first = driver.submit(prompt(tokens(1, 3), max_tokens=2))
    driver.submit(prompt(tokens(2, 3), max_tokens=20))
    driver.until(lambda: driver.over(first))
    added: list[int] = []
    add = Context.add

    def spy(self: Context, given: list[int], position: int, sequence: int, output: int) -> int:
        added.append(sequence)
        return add(self, given, position, sequence, output)

    monkeypatch.setattr(Context, "add", spy)
    # It comes last and takes over the sequence of the first.
    driver.submit(prompt(tokens(3, 3), max_tokens=2))
    driver.step()
    assert added == [0, 1]


def test_one_output_per_step_holds_all_requests(load: Load, endless: Path) -> None:
    driver = load(endless)
    for n in range(4):
        driver.submit(prompt(tokens(n, 3), max_tokens=5))
    driver.run()
    assert driver.outputs == 5


def test_max_tokens_ends_with_length(load: Load, endless: Path) -> None:
    driver = load(endless)
    request = driver.submit(prompt(tokens(1, 7), max_tokens=13))
    driver.run()
    finish = driver.finish(request)
    assert finish.reason == "length"
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (7, 13)
    assert finish.usage.total_tokens == 20


def test_timings_are_told(load: Load, endless: Path) -> None:
    driver = load(endless)
    request = driver.submit(prompt(tokens(1, 7), max_tokens=13))
    driver.run()
    timings = driver.finish(request).timings
    assert 0 < timings.prompt_seconds < 60
    assert 0 < timings.predicted_seconds < 60


def test_an_end_token_ends_with_stop_and_is_not_shown(load: Load, reciter: Path) -> None:
    driver = load(reciter)
    request = driver.submit(prompt())
    driver.run()
    finish = driver.finish(request)
    assert driver.text(request) == "Hello, world€!"
    # As llama-server counts: eight pieces and the end.
    assert (finish.reason, finish.usage.completion_tokens) == ("stop", 9)


@pytest.mark.parametrize("stop", ["o, w", "ld€", ", ", "!"])
def test_a_stop_string_over_token_borders_ends_the_text_before_it(
    load: Load, reciter: Path, stop: str
) -> None:
    driver = load(reciter)
    request = driver.submit(prompt(stop=("never", stop)))
    driver.run()
    assert driver.text(request) == "Hello, world€!".partition(stop)[0]
    assert driver.finish(request).reason == "stop"


def test_a_character_of_several_tokens_comes_in_one_delta(load: Load, reciter: Path) -> None:
    driver = load(reciter)
    request = driver.submit(prompt())
    driver.run()
    texts = [getattr(delta, "text", None) for delta in driver.deltas[request]]
    assert texts == ["Hello", ",", " wor", "ld", "€", "!", None]


def test_one_alone_ends_with_length_at_the_end_of_the_context(load: Load, endless: Path) -> None:
    driver = load(endless, n_ctx=N_CTX)
    assert driver.info.n_ctx == N_CTX
    request = driver.submit(prompt(tokens(1, 10)))
    driver.run()
    finish = driver.finish(request)
    assert finish.reason == "length"
    assert finish.usage.total_tokens == N_CTX


def test_the_longest_prompt_that_fits_gives_a_token(load: Load, endless: Path) -> None:
    driver = load(endless, n_ctx=N_CTX)
    request = driver.submit(prompt(tokens(1, N_CTX - 1)))
    driver.run()
    assert driver.finish(request).usage.completion_tokens == 1


def test_a_prompt_as_long_as_the_context_is_refused(load: Load, endless: Path) -> None:
    driver = load(endless, n_ctx=N_CTX)
    request = driver.submit(prompt(tokens(1, N_CTX)))
    driver.run()
    error = error_from(driver.failure(request))
    assert isinstance(error, ContextExceededError)
    assert error.message == (
        "request (256 tokens) exceeds the available context size (256 tokens), try increasing it"
    )
    assert error.fields == {"n_prompt_tokens": 256, "n_ctx": 256}


def test_max_tokens_below_one_is_refused(load: Load, endless: Path) -> None:
    driver = load(endless)
    request = driver.submit(prompt(max_tokens=0))
    driver.run()
    error = error_from(driver.failure(request))
    assert isinstance(error, InvalidRequestError)
    assert error.param == "max_tokens"


def test_embeddings_are_refused_with_the_option_to_set(load: Load, endless: Path) -> None:
    driver = load(endless)
    request = driver.submit(EmbedTask(inputs=("hello",)))
    driver.run()
    failure = driver.failure(request)
    assert isinstance(error_from(failure), NotSupportedError)
    assert "pooling" in failure.message


class TestRunningOutOfRoom:
    """Sequences share the cells; when these run out the youngest gives way and comes back."""

    prompts = [tokens(n, 40) for n in range(3)]

    def test_nothing_is_lost_or_repeated(self, load: Load, endless: Path) -> None:
        # Three times 40 + 120 tokens in 256 cells.
        driver = load(endless, n_ctx=N_CTX)
        requests = [driver.submit(prompt(given, max_tokens=120)) for given in self.prompts]
        driver.run()
        # More prompt rows than the three prompts: somebody was computed twice.
        assert sum(rows for rows in driver.rows if rows > 3) > 3 * 40
        texts = [driver.text(request) for request in requests]
        assert texts == alone(load, endless, self.prompts, 120)
        usages = [driver.finish(request).usage for request in requests]
        assert [usage.completion_tokens for usage in usages] == [120] * 3
        assert [usage.prompt_tokens for usage in usages] == [40] * 3

    def test_the_oldest_always_gets_on(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_ctx=N_CTX)
        requests = [driver.submit(prompt(given, max_tokens=120)) for given in self.prompts]
        driver.until(lambda: driver.over(requests[0]))
        # One step for its prompt and first token, one for each other token: it never stood still.
        assert len(driver.rows) == 120

    def test_a_newcomer_waits_until_its_prompt_fits(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_ctx=N_CTX)
        first = driver.submit(prompt(tokens(1, 150), max_tokens=20))
        second = driver.submit(prompt(tokens(2, 100), max_tokens=20))
        driver.run()
        # 150 + 100 cells would fit, but leave no room to grow.
        assert driver.rows == [150] + [1] * 19 + [100] + [1] * 19
        assert driver.finish(first).usage.completion_tokens == 20
        assert driver.finish(second).usage.completion_tokens == 20

    def test_a_stalled_request_gives_way_before_a_younger_one(
        self, load: Load, endless: Path
    ) -> None:
        driver = load(endless, n_ctx=N_CTX)
        stalled = driver.submit(prompt(tokens(1, 100), max_tokens=60), credit=5)
        driver.until(lambda: len(driver.deltas[stalled]) == 5)
        younger = driver.submit(prompt(tokens(2, 100), max_tokens=120))
        driver.run()
        assert driver.finish(younger).usage.completion_tokens == 120
        driver.engine.credit(stalled, 100)
        driver.run()
        assert [driver.text(stalled)] == alone(load, endless, [tokens(1, 100)], 60)


class TestCancel:
    def test_a_running_request_ends_at_once(self, load: Load, endless: Path) -> None:
        driver = load(endless)
        request = driver.submit(prompt(tokens(1, 4)))
        other = driver.submit(prompt(tokens(2, 4), max_tokens=20))
        for _ in range(5):
            driver.step()
        driver.engine.cancel(request)
        driver.run()
        finish = driver.finish(request)
        assert finish.reason == "cancelled"
        assert finish.usage.completion_tokens == 5
        assert driver.rows[5:] == [1] * 15
        assert driver.finish(other).reason == "length"

    def test_its_cells_are_free_again(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_ctx=N_CTX)
        request = driver.submit(prompt(tokens(1, 200)))
        driver.step()
        driver.engine.cancel(request)
        assert [driver.answer(prompt(tokens(2, 200), max_tokens=9))] == alone(
            load, endless, [tokens(2, 200)], 9
        )

    def test_a_waiting_request_never_starts(self, load: Load, endless: Path) -> None:
        driver = load(endless, n_parallel=1)
        driver.submit(prompt(tokens(1, 4), max_tokens=5))
        waiting = driver.submit(prompt(tokens(2, 40)))
        driver.step()
        driver.engine.cancel(waiting)
        driver.run()
        assert driver.rows == [4] + [1] * 4
        assert driver.finish(waiting).usage.completion_tokens == 0

    def test_a_request_that_is_over_or_unknown_is_let_be(self, load: Load, endless: Path) -> None:
        driver = load(endless)
        request = driver.submit(prompt(max_tokens=2))
        driver.run()
        driver.engine.cancel(request)
        driver.engine.cancel(99)
        driver.engine.credit(99, 1)
        driver.run()
        assert driver.finish(request).reason == "length"

    def test_a_request_that_waits_for_credit_ends_too(self, load: Load, endless: Path) -> None:
        driver = load(endless)
        request = driver.submit(prompt(), credit=5)
        driver.run()
        driver.engine.cancel(request)
        driver.run()
        assert driver.finish(request).reason == "cancelled"
        assert len(driver.deltas[request]) == 6


class TestCredit:
    def test_a_request_without_credit_pauses_and_others_go_on(
        self, load: Load, endless: Path
    ) -> None:
        prompts = [tokens(1, 4), tokens(2, 4)]
        driver = load(endless)
        paused = driver.submit(prompt(prompts[0], max_tokens=20), credit=5)
        other = driver.submit(prompt(prompts[1], max_tokens=20))
        driver.run()
        assert len(driver.deltas[paused]) == 5
        assert not driver.over(paused)
        assert driver.rows == [8] + [2] * 4 + [1] * 15
        assert driver.finish(other).reason == "length"
        driver.engine.credit(paused, 3)
        driver.run()
        assert len(driver.deltas[paused]) == 8
        driver.engine.credit(paused, 100)
        driver.run()
        assert [driver.text(paused), driver.text(other)] == alone(load, endless, prompts, 20)

    def test_the_finish_needs_none(self, load: Load, endless: Path) -> None:
        driver = load(endless)
        request = driver.submit(prompt(max_tokens=3), credit=3)
        driver.run()
        assert driver.finish(request).reason == "length"

    def test_a_waiting_request_without_credit_blocks_nobody(
        self, load: Load, endless: Path
    ) -> None:
        driver = load(endless, n_parallel=1)
        stalled = driver.submit(prompt(max_tokens=3), credit=0)
        other = driver.submit(prompt(max_tokens=3))
        driver.run()
        assert driver.finish(other).reason == "length"
        assert not driver.deltas[stalled]


class TestFailures:
    def test_a_fatal_decode_error_ends_the_requests_of_that_batch(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver = load(endless)
        failing = [driver.submit(prompt(tokens(n, 4))) for n in range(2)]
        driver.step()
        with monkeypatch.context() as patch:
            patch.setattr("llm_router_mw.engine.context.Context.compute", lambda self: -3)
            driver.step()
        for request in failing:
            assert "code -3" in driver.failure(request).message
        assert [driver.answer(prompt(tokens(3, 9), max_tokens=9))] == alone(
            load, endless, [tokens(3, 9)], 9
        )

    def test_an_engine_that_fails_again_and_again_gives_up(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver = load(endless)
        monkeypatch.setattr("llm_router_mw.engine.context.Context.compute", lambda self: -3)
        requests = [driver.submit(prompt()) for _ in range(9)]
        driver.step()
        driver.step()
        with pytest.raises(EngineBrokenError):
            driver.step()
        assert all(driver.failure(request) for request in requests)

    def test_a_context_that_has_less_room_than_counted_is_no_reason_to_fail(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prompts = [tokens(1, 5), tokens(2, 5)]
        driver = load(endless)
        requests = [driver.submit(prompt(given, max_tokens=20)) for given in prompts]
        driver.step()
        with monkeypatch.context() as patch:
            patch.setattr("llm_router_mw.engine.context.Context.compute", lambda self: 1)
            driver.step()
        driver.run()
        texts = [driver.text(request) for request in requests]
        assert texts == alone(load, endless, prompts, 20)

    def test_a_request_whose_answer_cannot_be_read_ends_alone(
        self, load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver = load(endless)
        failing = driver.submit(prompt(tokens(1, 4)))
        other = driver.submit(prompt(tokens(2, 4), max_tokens=9))

        def fail(self: object, piece: bytes) -> str:
            monkeypatch.undo()
            raise ValueError("no such piece")

        monkeypatch.setattr("llm_router_mw.engine.text.TextStream.feed", fail)
        driver.run()
        assert "no such piece" in driver.failure(failing).message
        assert driver.finish(other).reason == "length"


def test_cancelling_all_ends_running_waiting_and_stalled_requests(
    load: Load, endless: Path
) -> None:
    driver: Driver = load(endless, n_parallel=1)
    requests = [driver.submit(prompt()), driver.submit(prompt()), driver.submit(prompt(), credit=0)]
    driver.step()
    driver.engine.cancel_all()
    assert [driver.finish(request).reason for request in requests] == ["cancelled"] * 3
    assert isinstance(driver.deltas[requests[0]][-1], FinishDelta)
    assert not driver.step()
