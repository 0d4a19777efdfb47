"""Greedy answers are those of llama.cpp's plain loop, whatever the architecture and the company."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.engine.reference import TIE, Answer, Reference
from tests.support.tiny_architectures import ARCHITECTURES, SLIDING_WINDOW, write_tiny
from tests.support.tiny_models import FIRST_PIECE

Tokens = tuple[int, ...]
Start = Callable[..., Driver]

N_BATCH = 48
"""From 64 rows on, llama.cpp attends with another kernel, whose logits differ by 1e-2 already."""


def tokens(start: int, length: int) -> Tokens:
    """Return a prompt of *length* tokens, different for each *start*."""
    return tuple(FIRST_PIECE + (start * 7 + step * step + step) % 100 for step in range(length))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("architectures")
    path: Path = folder / f"{request.param}.gguf"
    return write_tiny(path, request.param)


@pytest.fixture(scope="module")
def reference(model: Path) -> Iterator[Reference]:
    reference = Reference(model)
    yield reference
    reference.close()


def expect(reference: Reference, given: Tokens, n_tokens: int) -> Answer:
    """Return the plain loop's answer to a prompt that comes in pieces as small as ours."""
    return reference.greedy(given, n_tokens, N_BATCH)


@pytest.fixture
def start(load: Load, model: Path) -> Start:
    """Load the model with small batches."""
    return partial(load, model, n_batch=N_BATCH)


def check_all(driver: Driver, requests: Sequence[int], answers: Sequence[Answer]) -> None:
    """Run to the end; each request must give its answer."""
    driver.run()
    for request, answer in zip(requests, answers, strict=True):
        answer.check(driver.text(request))


def test_the_reference_speaks_clearly(reference: Reference) -> None:
    # Else the tests below would take nearly anything for the right answer.
    answer = reference.greedy(tokens(1, 80), 60)
    assert sum(margin < TIE for margin in answer.margins) <= 1
    assert len(set(answer.tokens)) > 10


def test_what_was_said_long_ago_counts(reference: Reference) -> None:
    # Else a context that forgets or keeps the wrong things would go unnoticed.
    said = tokens(1, 20)
    other = (said[0] + 1, *said[1:])
    assert reference.greedy(said, 40).tokens != reference.greedy(other, 40).tokens


@pytest.mark.parametrize("length", [1, 20, 2 * SLIDING_WINDOW + 5])
def test_alone_it_is_the_plain_loops_answer(
    load: Load, model: Path, reference: Reference, length: int
) -> None:
    given = tokens(length, length)
    answer = load(model).answer(prompt(given, max_tokens=100))
    assert answer == reference.greedy(given, 100).text


def test_a_prompt_in_pieces_gives_the_same(start: Start, reference: Reference) -> None:
    given = tokens(3, 90)
    answer = start(n_batch=16).answer(prompt(given, max_tokens=40))
    expect(reference, given, 40).check(answer)


def test_in_company_it_is_the_same_but_for_ties(start: Start, reference: Reference) -> None:
    given = [tokens(n, 3 + 11 * n) for n in range(6)]
    driver = start(n_parallel=4)
    requests = [driver.submit(prompt(each, max_tokens=50)) for each in given]
    check_all(driver, requests, [expect(reference, each, 50) for each in given])


def test_joining_and_leaving_disturbs_nobody(start: Start, reference: Reference) -> None:
    given = [tokens(n, 5 + 7 * n) for n in range(5)]
    limits = [60, 7, 30, 1, 45]
    driver = start(n_parallel=3)
    requests = []
    for each, limit in zip(given, limits, strict=True):
        requests.append(driver.submit(prompt(each, max_tokens=limit)))
        for _ in range(5):
            driver.step()
    answers = [expect(reference, each, limit) for each, limit in zip(given, limits, strict=True)]
    check_all(driver, requests, answers)


def test_when_the_room_runs_out_nothing_is_lost(start: Start, reference: Reference) -> None:
    given = [tokens(n, 40) for n in range(4)]
    driver = start(n_ctx=256)
    requests = [driver.submit(prompt(each, max_tokens=80)) for each in given]
    check_all(driver, requests, [expect(reference, each, 80) for each in given])


class TestConversation:
    """What can be taken over from former requests must not change what is said."""

    def test_the_same_prompt_again(self, start: Start, reference: Reference) -> None:
        given = tokens(1, 50)
        expected = expect(reference, given, 30)
        driver = start()
        for _ in range(3):
            expected.check(driver.answer(prompt(given, max_tokens=30)))

    def test_the_same_prompt_at_once(self, start: Start, reference: Reference) -> None:
        given = tokens(1, 50)
        driver = start()
        requests = [driver.submit(prompt(given, max_tokens=30)) for _ in range(4)]
        check_all(driver, requests, [expect(reference, given, 30)] * 4)

    @pytest.mark.parametrize("n_parallel", [1, 4])
    def test_turns_that_build_on_each_other(
        self, start: Start, reference: Reference, n_parallel: int
    ) -> None:
        driver = start(n_parallel=n_parallel)
        history: Tokens = ()
        for turn in range(5):
            history += tokens(turn, 25)
            expected = expect(reference, history, 20)
            expected.check(driver.answer(prompt(history, max_tokens=20)))
            history += expected.tokens

    def test_two_conversations_take_turns(self, start: Start, reference: Reference) -> None:
        driver = start(n_parallel=2)
        histories = [tokens(1, 30), tokens(2, 40)]
        for turn in range(4):
            answers = [expect(reference, history, 15) for history in histories]
            requests = [driver.submit(prompt(each, max_tokens=15)) for each in histories]
            check_all(driver, requests, answers)
            for side, answer in enumerate(answers):
                histories[side] += answer.tokens + tokens(turn + side, 10)

    @pytest.mark.parametrize("kept", [1, 10, 59, 60, 75])
    def test_a_prompt_that_turns_off_in_the_middle(
        self, start: Start, reference: Reference, kept: int
    ) -> None:
        driver = start()
        first = tokens(1, 60)
        answer = expect(reference, first, 30)
        answer.check(driver.answer(prompt(first, max_tokens=30)))
        # Another ending, as when a message is edited, or an answer made again.
        second = (first + answer.tokens)[:kept] + tokens(5, 12)
        expect(reference, second, 30).check(driver.answer(prompt(second, max_tokens=30)))
        expect(reference, first, 30).check(driver.answer(prompt(first, max_tokens=30)))

    def test_a_beginning_of_what_was_said(self, start: Start, reference: Reference) -> None:
        driver = start()
        long = tokens(1, 80)
        driver.answer(prompt(long, max_tokens=5))
        for length in (79, 40, 1):
            given = long[:length]
            expect(reference, given, 20).check(driver.answer(prompt(given, max_tokens=20)))

    def test_users_of_one_system_prompt(self, start: Start, reference: Reference) -> None:
        system = tokens(1, 60)
        given = [system + tokens(10 + user, 9) for user in range(6)]
        driver = start()
        requests = [driver.submit(prompt(each, max_tokens=20)) for each in given]
        check_all(driver, requests, [expect(reference, each, 20) for each in given])

    def test_a_cancelled_answer_leaves_nothing_wrong(
        self, start: Start, reference: Reference
    ) -> None:
        driver = start(n_batch=32)
        given = tokens(1, 70)
        for n_steps in (1, 2, 12):
            request = driver.submit(prompt(given, max_tokens=50))
            for _ in range(n_steps):
                driver.step()
            driver.engine.cancel(request)
            driver.run()
        expect(reference, given, 30).check(driver.answer(prompt(given, max_tokens=30)))
