"""The probabilities that are reported with the text, and with which piece of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_router_mw.engine.probabilities import IMPOSSIBLE
from llm_router_mw.types import ContentDelta, Sampling, TokenProbs
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.engine.reference import Reference
from tests.support.tiny_models import EOS


def contents(driver: Driver, request: int) -> list[ContentDelta]:
    return [delta for delta in driver.deltas[request] if isinstance(delta, ContentDelta)]


def tokens(driver: Driver, request: int) -> list[TokenProbs]:
    return [token for delta in contents(driver, request) for token in delta.logprobs]


def run(driver: Driver, n_probs: int = 3, **fields: Any) -> int:
    sampling = fields.pop("sampling", Sampling(temperature=0, n_probs=n_probs))
    request = driver.submit(prompt(fields.pop("text", "the fox"), sampling=sampling, **fields))
    driver.run()
    return request


@pytest.mark.parametrize(
    "settings", [{}, {"temperature": 3.0, "top_k": 5, "logit_bias": ((9, 4),)}]
)
def test_the_models_own_probabilities_come_before_all_samplers(
    load: Load, endless: Path, settings: dict[str, Any]
) -> None:
    driver = load(endless)
    given = (300, 301, 302)
    sampling = Sampling(**{"temperature": 0, "n_probs": 4, "seed": 1, **settings})
    request = run(driver, sampling=sampling, text=given, max_tokens=6)
    answer = tokens(driver, request)
    reference = Reference(endless)
    for place, token in enumerate(answer):
        before = (*given, *(one.id for one in answer[:place]))
        logits = np.array(reference.logits(before), np.float64)
        logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        likeliest = np.argsort(-logprobs)[:4]
        assert [one.id for one in token.top] == likeliest.tolist()
        np.testing.assert_allclose(
            [one.logprob for one in token.top], logprobs[likeliest], atol=1e-3
        )
        assert token.logprob == pytest.approx(logprobs[token.id], abs=1e-3)
        vocab = driver.engine._model.vocab  # type: ignore[union-attr]
        assert token.raw == vocab.piece(token.id)
        assert token.text == token.raw.decode()
    reference.close()


def test_probabilities_after_the_samplers_are_those_of_the_choice(
    load: Load, endless: Path
) -> None:
    driver = load(endless)
    sampling = Sampling(top_k=3, top_p=1.0, min_p=0.0, n_probs=5, post_sampling_probs=True, seed=2)
    for token in tokens(driver, run(driver, sampling=sampling, max_tokens=10)):
        assert len(token.top) == 3
        assert sum(np.exp(one.logprob) for one in token.top) == pytest.approx(1, abs=1e-3)
        assert token.logprob in [one.logprob for one in token.top]


def test_without_samplers_after_is_before(load: Load, endless: Path) -> None:
    driver = load(endless)
    neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 2, "n_probs": 3}
    answers = []
    for after in (False, True):
        sampling = Sampling(**{**neutral, "post_sampling_probs": after})  # type: ignore[arg-type]
        answers.append(tokens(driver, run(driver, sampling=sampling, max_tokens=9)))
    assert [[one.id for one in token.top] for token in answers[0]] == [
        [one.id for one in token.top] for token in answers[1]
    ]
    np.testing.assert_allclose(
        [token.logprob for token in answers[0]], [token.logprob for token in answers[1]], atol=1e-3
    )


def test_no_probabilities_unless_asked_for(load: Load, endless: Path) -> None:
    driver = load(endless)
    assert tokens(driver, run(driver, n_probs=0, max_tokens=5)) == []


def test_there_are_as_many_as_asked_for_and_at_most_all(load: Load, endless: Path) -> None:
    driver = load(endless)
    (token,) = tokens(driver, run(driver, n_probs=1000, max_tokens=1))
    assert len(token.top) == driver.info.n_vocab
    assert len(tokens(driver, run(driver, n_probs=1, max_tokens=1))[0].top) == 1


def test_every_token_comes_with_the_text_that_it_ends_in(load: Load, endless: Path) -> None:
    driver = load(endless)
    request = run(driver, max_tokens=20)
    for delta in contents(driver, request):
        assert "".join(token.text for token in delta.logprobs) == delta.text
    assert len(tokens(driver, request)) == 20


def test_the_end_of_the_answer_is_no_token_of_it(load: Load, reciter: Path) -> None:
    driver = load(reciter)
    request = run(driver)
    assert EOS not in [token.id for token in tokens(driver, request)]
    assert b"".join(token.raw for token in tokens(driver, request)) == "Hello, world€!".encode()


def test_parts_of_a_character_are_bytes_without_text(load: Load, reciter: Path) -> None:
    driver = load(reciter)
    request = run(driver)
    parts = [token for token in tokens(driver, request) if token.raw in b"\xe2\x82\xac"]
    assert [token.raw for token in parts] == [b"\xe2", b"\x82", b"\xac"]
    assert [token.text for token in parts] == [""] * 3
    (delta,) = [delta for delta in contents(driver, request) if "€" in delta.text]
    assert delta.logprobs[-1].raw == b"\xac"


def test_what_waits_for_a_stop_string_keeps_its_probabilities(load: Load, reciter: Path) -> None:
    driver = load(reciter)
    request = run(driver, stop=("o, worms",))
    shown = contents(driver, request)
    assert [delta.text for delta in shown][:2] == ["Hell", "o, world"]
    assert [[token.text for token in delta.logprobs] for delta in shown][:2] == [
        [],
        ["Hello", ",", " wor", "ld"],
    ]


def test_tokens_of_a_stop_string_are_not_reported(load: Load, reciter: Path) -> None:
    driver = load(reciter)
    request = run(driver, stop=(", w",))
    assert driver.text(request) == "Hello"
    assert [token.text for token in tokens(driver, request)] == ["Hello"]


def test_a_token_that_is_shown_in_part_is_reported(load: Load, reciter: Path) -> None:
    driver = load(reciter)
    request = run(driver, stop=("lo, wo",))
    assert driver.text(request) == "Hel"
    assert [token.text for token in tokens(driver, request)] == ["Hello"]


def test_what_is_written_together_is_reported_together(load: Load, endless: Path) -> None:
    driver = load(endless)
    sampling = Sampling(temperature=0, n_probs=1)
    request = driver.submit(prompt(sampling=sampling, max_tokens=6), credit=1)
    driver.run()
    driver.engine.credit(request, 100)
    driver.run()
    assert len(tokens(driver, request)) == 6


def test_an_answer_that_is_cut_within_a_character_reports_its_parts(
    load: Load, reciter: Path
) -> None:
    driver = load(reciter)
    request = run(driver, max_tokens=6)
    assert [token.raw for token in tokens(driver, request)][4:] == [b"\xe2", b"\x82"]


def test_what_cannot_be_is_a_number_all_the_same(load: Load, endless: Path) -> None:
    driver = load(endless)
    sampling = Sampling(
        temperature=0, n_probs=1024, post_sampling_probs=False, logit_bias=((300, False),)
    )
    (token,) = tokens(driver, run(driver, sampling=sampling, max_tokens=1))
    assert all(IMPOSSIBLE <= one.logprob <= 0 for one in token.top)
