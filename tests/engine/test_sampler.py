"""Each sampling setting changes what is chosen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from llm_router_mw.errors import InvalidRequestError, error_from
from llm_router_mw.types import Sampling
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt

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
    assert first_tokens(driver, top_k=2**40) == first_tokens(driver, top_k=driver.info.n_vocab)


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


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_setting_that_is_no_number_is_refused(driver: Driver, name: str, value: float) -> None:
    request = driver.submit(prompt(sampling=Sampling(**{name: value})))  # type: ignore[arg-type]
    driver.run()
    error = error_from(driver.failure(request))
    assert isinstance(error, InvalidRequestError)
    assert error.param == name
