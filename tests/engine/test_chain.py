"""What each setting makes of the model's probabilities, against its definition in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_router_mw.errors import InvalidRequestError, error_from
from llm_router_mw.types import ContentDelta, Sampling
from tests.engine.driver import Driver, prompt
from tests.support.tiny_models import EOS, IM_END

Array = Any
"""One number for each token."""

# Its end was there before, so that all that looks back has something to find, and the model does
# not know well what to say to it.
_PROMPT = (280, 328, 300, 319, 333, 280, 328, 300)
_NEUTRAL: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "seed": 7,
    "n_probs": 1024,
    "post_sampling_probs": True,
}


@pytest.fixture(scope="module")
def driver(endless: Path) -> Iterator[Driver]:
    found = Driver(endless, n_parallel=1)
    yield found
    found.close()


def chances(driver: Driver, tokens: tuple[int, ...] = _PROMPT, **settings: Any) -> Array:
    """Return the probability of each token after *tokens*, once the samplers have worked."""
    sampling = Sampling(**{**_NEUTRAL, **settings})
    request = driver.submit(prompt(tokens, sampling=sampling, max_tokens=1))
    driver.run()
    delta = driver.deltas[request][0]
    assert isinstance(delta, ContentDelta)
    found = np.zeros(driver.info.n_vocab)
    for token in delta.logprobs[0].top:
        found[token.id] = np.exp(token.logprob)
    return found


@pytest.fixture(scope="module")
def logits(driver: Driver) -> Array:
    """The logarithms of the model's own probabilities: its logits, up to a constant."""
    with np.errstate(divide="ignore"):
        return np.log(chances(driver))


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def only(logits: Array, kept: Array) -> Array:
    return softmax(np.where(kept, logits, -np.inf))


def assert_close(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)


def ranks(logits: Array) -> Array:
    """Return the place of each token, the likeliest being 0."""
    return np.argsort(np.argsort(-logits))


def test_the_model_itself_is_undecided(logits: Array) -> None:
    assert (np.exp(logits) > 0.005).sum() > 20


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature(driver: Driver, logits: Array, temperature: float) -> None:
    assert_close(chances(driver, temperature=temperature), softmax(logits / temperature))


@pytest.mark.parametrize("temperature", [0, 1e-9])
def test_temperature_zero_leaves_the_likeliest(
    driver: Driver, logits: Array, temperature: float
) -> None:
    assert_close(chances(driver, temperature=temperature), only(logits, ranks(logits) == 0))


@pytest.mark.parametrize("exponent", [1.0, 3.0])
def test_dynatemp(driver: Driver, logits: Array, exponent: float) -> None:
    found = chances(driver, dynatemp_range=0.5, dynatemp_exponent=exponent)
    model = np.exp(logits)
    entropy = -(model * np.log(np.maximum(model, 1e-30))).sum() / np.log(len(model))
    assert_close(found, softmax(logits / (0.5 + 1.0 * entropy**exponent)))


def test_top_k(driver: Driver, logits: Array) -> None:
    assert_close(chances(driver, top_k=5), only(logits, ranks(logits) < 5))


@pytest.mark.parametrize("top_k", [-1, 2**31 - 1])
def test_top_k_without_effect(driver: Driver, logits: Array, top_k: int) -> None:
    assert_close(chances(driver, top_k=top_k), softmax(logits))


def nucleus(logits: Array, order: Array, top_p: float) -> Array:
    """Return which tokens, taken in *order*, are needed to reach the probability *top_p*."""
    sums = np.cumsum(np.exp(logits)[order])
    return np.isin(np.arange(len(logits)), order[: np.searchsorted(sums, top_p) + 1])


def test_top_p(driver: Driver, logits: Array) -> None:
    kept = nucleus(logits, np.argsort(-logits), 0.3)
    assert 1 < kept.sum() < 100
    assert_close(chances(driver, top_p=0.3), only(logits, kept))


def test_min_p(driver: Driver, logits: Array) -> None:
    kept = logits >= logits.max() + np.log(0.4)
    assert 1 < kept.sum() < 100
    assert_close(chances(driver, min_p=0.4), only(logits, kept))


def test_min_keep(driver: Driver, logits: Array) -> None:
    assert_close(chances(driver, top_p=0.0, min_keep=4), only(logits, ranks(logits) < 4))
    assert_close(chances(driver, min_p=1.0, min_keep=4), only(logits, ranks(logits) < 4))


def test_typical_p(driver: Driver, logits: Array) -> None:
    # Of tokens that are impossible llama.cpp cannot say how typical they are.
    model = only(logits, ranks(logits) < 50)
    surprise = -np.log(np.maximum(model, 1e-30))
    oddness = np.abs(surprise - (model * surprise).sum())
    with np.errstate(divide="ignore"):
        kept = nucleus(np.log(model), np.argsort(oddness), 0.4)
    assert not kept[np.argmax(logits)]
    assert_close(chances(driver, top_k=50, typical_p=0.4), only(logits, kept))


def test_top_n_sigma(driver: Driver, logits: Array) -> None:
    found = chances(driver, top_n_sigma=0.05)
    # The model rules some tokens out by very low logits, which make the deviation large.
    kept = found > 0
    assert 0 < kept.sum() < 100
    assert kept.sum() == (logits >= logits[kept].min()).sum()
    assert chances(driver, top_n_sigma=0.02).astype(bool).sum() < kept.sum()


def test_xtc(driver: Driver, logits: Array) -> None:
    strong = np.exp(logits) >= 0.02
    assert 2 < strong.sum() < 20
    weakest = strong & (logits == logits[strong].min())
    found = chances(driver, xtc_probability=1.0, xtc_threshold=0.02)
    assert_close(found, only(logits, ~strong | weakest))
    assert_close(chances(driver, xtc_probability=1.0, xtc_threshold=0.6), softmax(logits))


def counted(logits: Array, last: int) -> Array:
    return np.bincount(_PROMPT[len(_PROMPT) - last :], minlength=len(logits))


@pytest.mark.parametrize("last", [8, 3])
def test_repeat_penalty_counts_the_prompt(driver: Driver, logits: Array, last: int) -> None:
    found = chances(driver, repeat_penalty=1.5, repeat_last_n=last)
    possible = np.exp(logits) > 0
    changes = np.log(found[possible]) - logits[possible]
    # All others change alike, because the sum of all must stay 1.
    usual = np.median(changes)
    there = counted(logits, last)[possible] > 0
    assert (np.abs(changes[there] - usual) > 0.01).all()
    assert_close(changes[~there], np.full((~there).sum(), usual))


def test_frequency_penalty(driver: Driver, logits: Array) -> None:
    found = chances(driver, frequency_penalty=0.7)
    assert_close(found, softmax(logits - 0.7 * counted(logits, 8)))


def test_presence_penalty(driver: Driver, logits: Array) -> None:
    found = chances(driver, presence_penalty=0.7)
    assert_close(found, softmax(logits - 0.7 * (counted(logits, 8) > 0)))


def test_repeat_last_n(driver: Driver, logits: Array) -> None:
    found = chances(driver, presence_penalty=0.7, repeat_last_n=3)
    assert_close(found, softmax(logits - 0.7 * (counted(logits, 3) > 0)))
    assert_close(chances(driver, presence_penalty=0.7, repeat_last_n=0), softmax(logits))


@pytest.mark.parametrize(
    ("settings", "penalty"),
    [
        ({}, 2.0 * 1.75),
        ({"dry_base": 3.0}, 2.0 * 3.0),
        ({"dry_base": 0.5}, 2.0 * 1.75),
        ({"dry_allowed_length": 1}, 2.0 * 1.75**2),
        ({"dry_allowed_length": 4}, 0.0),
        ({"dry_penalty_last_n": 5}, 0.0),
        ({"dry_penalty_last_n": 0}, 0.0),
        ({"dry_multiplier": 0.0}, 0.0),
    ],
)
def test_dry_punishes_what_would_go_on_with_a_repetition(
    driver: Driver, logits: Array, settings: dict[str, Any], penalty: float
) -> None:
    # Three tokens are there for the second time; the token behind them the first time is 319.
    expected = softmax(logits - penalty * (np.arange(len(logits)) == 319))
    assert_close(chances(driver, **{"dry_multiplier": 2.0, **settings}), expected)


def test_dry_does_not_look_beyond_a_breaker(driver: Driver, logits: Array) -> None:
    piece = driver.engine._model.vocab.piece(300).decode()  # type: ignore[union-attr]
    found = chances(driver, dry_multiplier=2.0, dry_sequence_breakers=(piece,))
    assert_close(found, softmax(logits))


def test_dry_settings_that_come_often_and_others(driver: Driver) -> None:
    first = chances(driver, dry_multiplier=1.0)
    for number in range(12):
        chances(driver, dry_multiplier=2.0 + number)
    assert_close(chances(driver, dry_multiplier=1.0), first)


def test_mirostat_2_drops_what_is_too_surprising(driver: Driver, logits: Array) -> None:
    found = chances(driver, mirostat=2, mirostat_tau=2.5, top_k=1)
    # It begins with a limit of twice tau, in bits.
    assert_close(found, only(logits, -logits / np.log(2) <= 5.0))


def test_mirostat_1_keeps_as_many_as_it_estimates(driver: Driver, logits: Array) -> None:
    few = (chances(driver, mirostat=1, mirostat_tau=1.0) > 0).sum()
    many = (chances(driver, mirostat=1, mirostat_tau=4.0) > 0).sum()
    assert 0 < few < many
    assert_close(chances(driver, mirostat=1, mirostat_tau=1.0), only(logits, ranks(logits) < few))


def test_mirostat_learns(driver: Driver) -> None:
    def text(eta: float) -> str:
        sampling = Sampling(mirostat=2, mirostat_tau=1.0, mirostat_eta=eta, seed=3)
        return driver.answer(prompt(sampling=sampling, max_tokens=40))

    assert text(0.0) != text(1.0)


def test_adaptive_p_prefers_tokens_near_its_target(driver: Driver, logits: Array) -> None:
    found = chances(driver, samplers=("adaptive_p",), adaptive_target=0.05)
    distance = np.abs(np.exp(logits) - 0.05) / 0.3
    assert_close(found, softmax(5.0 - 10.0 * distance**2 / (1.0 + distance)))
    assert_close(chances(driver, samplers=("adaptive_p",)), softmax(logits))


def test_adaptive_p_adapts_to_its_choices(driver: Driver) -> None:
    def text(decay: float) -> str:
        sampling = Sampling(
            samplers=("adaptive_p",), adaptive_target=0.5, adaptive_decay=decay, seed=3
        )
        return driver.answer(prompt(sampling=sampling, max_tokens=40))

    assert text(0.0) != text(0.99)


def test_logit_bias(driver: Driver, logits: Array) -> None:
    found = chances(driver, logit_bias=((300, 2.0), ("ab", 1.0), (301, False), (10**6, 5.0)))
    vocab = driver.engine._model.vocab  # type: ignore[union-attr]
    letters = vocab.tokenize("ab", add=False, parse=False)
    assert len(letters) == 2
    expected = logits.copy()
    expected[300] += 2.0
    expected[letters] += 1.0
    expected[301] = -np.inf
    assert_close(found, softmax(expected))


def test_ignore_eos(driver: Driver) -> None:
    ends = ((EOS, 2000.0), (IM_END, 2000.0))
    request = driver.submit(prompt(sampling=Sampling(logit_bias=ends), max_tokens=9))
    driver.run()
    assert driver.finish(request).usage.completion_tokens == 1
    request = driver.submit(
        prompt(sampling=Sampling(logit_bias=ends, ignore_eos=True), max_tokens=9)
    )
    driver.run()
    assert driver.finish(request).usage.completion_tokens == 9


def test_the_order_of_samplers_counts(driver: Driver, logits: Array) -> None:
    hot = softmax(logits / 2)
    with np.errstate(divide="ignore"):
        kept = nucleus(np.log(hot), np.argsort(-logits), 0.3)
    found = chances(driver, samplers=("temperature", "top_p"), temperature=2.0, top_p=0.3)
    assert_close(found, only(logits / 2, kept))
    assert not np.allclose(found, chances(driver, temperature=2.0, top_p=0.3))


def test_a_sampler_that_is_not_listed_does_nothing(driver: Driver, logits: Array) -> None:
    found = chances(
        driver, samplers=("Top-K",), top_k=9, temperature=0.0, top_p=0.1, presence_penalty=2.0
    )
    assert_close(found, only(logits, ranks(logits) < 9))
    assert_close(chances(driver, samplers=(), top_k=1), softmax(logits))


def test_the_infill_sampler_ends_what_it_is_not_sure_of(driver: Driver) -> None:
    sampling = Sampling(samplers=("infill",))
    request = driver.submit(prompt(_PROMPT, sampling=sampling, max_tokens=9))
    driver.run()
    assert driver.finish(request).usage.completion_tokens == 1


@pytest.mark.parametrize("settings", [{}, {"top_k": 3, "top_p": 0.9, "min_p": 0.3}])
@pytest.mark.parametrize(
    "penalties", [{}, {"repeat_penalty": 4.0, "repeat_last_n": 8}, {"dry_multiplier": 50.0}]
)
def test_greedy_is_the_likeliest_after_biases_and_penalties(
    driver: Driver, settings: dict[str, Any], penalties: dict[str, Any]
) -> None:
    best = int(np.argmax(chances(driver)))
    repeated = (*_PROMPT[:3], best, 350, *_PROMPT[:3])
    for biases in ((), ((best, False),)):
        likeliest = int(np.argmax(chances(driver, repeated, logit_bias=biases, **penalties)))
        sampling = Sampling(
            temperature=0.0, logit_bias=biases, n_probs=1, **{**settings, **penalties}
        )
        request = driver.submit(prompt(repeated, sampling=sampling, max_tokens=1))
        driver.run()
        (delta, _) = driver.deltas[request]
        assert isinstance(delta, ContentDelta)
        assert delta.logprobs[0].id == likeliest


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"logit_bias": tuple((token, False) for token in range(500))}, "logit_bias"),
        ({"logit_bias": (("ab" * 3000, 1.0),)}, "logit_bias"),
        ({"logit_bias": (("ab" * 3000, 1.0),), "grammar": 'root ::= "a"'}, "logit_bias"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_settings_that_leave_nothing_to_choose_are_refused(
    driver: Driver, settings: dict[str, Any], param: str
) -> None:
    request = driver.submit(prompt(sampling=Sampling(**settings)))
    driver.run()
    error = error_from(driver.failure(request))
    assert isinstance(error, InvalidRequestError)
    assert error.param == param
