"""Each sampling setting changes what is chosen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from llm_router_mw.errors import InvalidRequestError, error_from
from llm_router_mw.types import Sampling
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.support.tiny_models import write_tiny_llama

_WILD = {"temperature": 3.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
"""Settings under which nearly every seed chooses another token."""


@pytest.fixture
def driver(load: Load, endless: Path) -> Driver:
    return load(endless, n_parallel=40)


def first_tokens(driver: Driver, **settings: float) -> list[str]:
    """Return the first token that each of 40 seeds chooses after the same prompt."""
    requests = []
    for seed in range(40):
        sampling = Sampling(**{**_WILD, "seed": seed, **settings})  # type: ignore[arg-type]
        requests.append(driver.submit(prompt(sampling=sampling, max_tokens=1)))
    driver.run()
    return [driver.text(request) for request in requests]


def test_wild_settings_choose_many_tokens(driver: Driver) -> None:
    assert len(set(first_tokens(driver))) > 25


def test_temperature_zero_is_greedy(driver: Driver) -> None:
    assert set(first_tokens(driver, temperature=0)) == {driver.answer(prompt(max_tokens=1))}


def test_temperature_narrows_the_choice(driver: Driver) -> None:
    lukewarm = len(set(first_tokens(driver, temperature=1.0)))
    assert 1 < lukewarm < len(set(first_tokens(driver))) - 5


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
def test_the_narrowest_filter_leaves_the_likeliest_token(
    driver: Driver, settings: dict[str, float]
) -> None:
    assert set(first_tokens(driver, **settings)) == {driver.answer(prompt(max_tokens=1))}


def test_top_k_leaves_so_many(driver: Driver) -> None:
    assert len(set(first_tokens(driver, top_k=3))) == 3


def test_a_huge_top_k_keeps_all(driver: Driver) -> None:
    assert first_tokens(driver, top_k=2**31 - 1) == first_tokens(driver, top_k=driver.info.n_vocab)


def test_the_filters_come_before_the_temperature(driver: Driver) -> None:
    # After a temperature of 3 the likeliest token alone would hold far less than half.
    filtered = set(first_tokens(driver, temperature=0.999, top_p=0.5))
    assert set(first_tokens(driver, temperature=3.0, top_p=0.5)) <= filtered


def test_a_seed_gives_the_same_text_again(driver: Driver) -> None:
    task = prompt(sampling=Sampling(**_WILD, seed=5), max_tokens=30)  # type: ignore[arg-type]
    assert driver.answer(task) == driver.answer(task)


@pytest.mark.parametrize("seed", [None, -1])
def test_no_seed_gives_another_text_each_time(driver: Driver, seed: int | None) -> None:
    task = prompt(sampling=Sampling(**_WILD, seed=seed), max_tokens=30)  # type: ignore[arg-type]
    assert driver.answer(task) != driver.answer(task)


def test_a_seed_of_any_size_will_do(driver: Driver) -> None:
    task = prompt(sampling=Sampling(seed=2**70), max_tokens=5)
    assert driver.answer(task) == driver.answer(task)


def test_what_a_sampler_remembers_outlives_the_loss_of_its_place(load: Load, endless: Path) -> None:
    # Greedy: what is computed again comes in other batches, and is rounded differently.
    settings = Sampling(
        temperature=0.0, frequency_penalty=0.5, dry_multiplier=1.0, repeat_last_n=200
    )
    tasks = [prompt(f"{word} fox", sampling=settings, max_tokens=180) for word in ("the", "an")]
    alone = [load(endless, n_ctx=256, n_parallel=2).answer(task) for task in tasks]
    driver = load(endless, n_ctx=256, n_parallel=2)
    requests = [driver.submit(task) for task in tasks]
    driver.run()
    assert [driver.text(request) for request in requests] == alone
    assert sum(driver.rows) > 2 * 190, "nothing had to be computed again"


_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 1.5}, {"top_k": 300}])
def test_a_look_at_the_likeliest_tokens_gives_what_a_look_at_all_does(
    load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float]
) -> None:
    path = write_tiny_llama(folder / "large_vocabulary.gguf", n_vocab=3000)
    driver = load(path)

    def answers() -> list[str]:
        given = [Sampling(json_schema=_SCHEMA, seed=seed, **settings) for seed in range(6)]  # type: ignore[arg-type]
        return [driver.answer(prompt(sampling=one, max_tokens=60)) for one in given]

    quick = answers()
    monkeypatch.setattr("llm_router_mw.engine.sampler._LOOKS", ())
    assert quick == answers()
    monkeypatch.setattr("llm_router_mw.engine.sampler._LOOKS", (400, 1000))
    monkeypatch.setattr("llm_router_mw.engine.sampler._NEGLIGIBLE", 0.0)
    assert quick == answers()


def test_a_model_that_gives_no_numbers_ends_the_request(
    load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = load(endless)
    monkeypatch.setattr("llm_router_mw.engine.candidates.Candidates.chosen", None)
    settings = Sampling(n_probs=1, post_sampling_probs=True)
    request = driver.submit(prompt(sampling=settings, max_tokens=3))
    driver.run()
    assert "no token can be chosen" in driver.failure(request).message


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_setting_that_is_no_number_is_refused(driver: Driver, name: str, value: float) -> None:
    request = driver.submit(prompt(sampling=Sampling(**{name: value})))  # type: ignore[arg-type]
    driver.run()
    error = error_from(driver.failure(request))
    assert isinstance(error, InvalidRequestError)
    assert error.param == name
