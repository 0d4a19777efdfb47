"""Made traces: as many requests as asked for, in order, the same for a seed, and as described."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from llm_router_mw.simulator.generate import KINDS, generate
from llm_router_mw.simulator.trace import Ask, read_trace, trace_lines

DAY = 86_400.0


def asks(kind: str, requests: int = 500, seed: int = 3, models: int | None = None) -> list[Ask]:
    return list(generate(kind, requests, seed, models).asks)


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_as_many_requests_as_asked_for_in_order(kind: str) -> None:
    made = asks(kind)

    assert len(made) == 500
    assert all(earlier.time <= later.time for earlier, later in pairwise(made))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind: str) -> None:
    assert asks(kind) == asks(kind)
    assert asks(kind) != asks(kind, seed=4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_can_be_written_and_read(kind: str) -> None:
    lines = list(trace_lines(generate(kind, 50, 1)))

    read = read_trace(lines)

    assert read.models == generate(kind, 50, 1).models
    assert list(read.asks) == asks(kind, 50, 1)


@pytest.mark.parametrize("kind", ["zipf", "bursts", "diurnal"])
def test_there_are_as_many_models_as_asked_for(kind: str) -> None:
    assert len(generate(kind, 1, 1, 70).models) == 70


def test_few_models_are_asked_for_often_and_most_rarely() -> None:
    counts = [count for _, count in Counter(ask.model for ask in asks("zipf", 3000)).most_common()]

    assert counts[0] > 3 * counts[5]
    assert len(counts) > 20


def test_people_ask_one_model_a_dozen_times() -> None:
    visits = Counter(ask.key for ask in asks("bursts", 3000))
    models = {(ask.key, ask.model) for ask in asks("bursts", 3000)}

    assert len(models) == len(visits)
    assert 9 < 3000 / len(visits) < 15


def test_the_agent_embeds_before_it_talks_and_seldom_asks_the_giant() -> None:
    made = [ask.model for ask in asks("agent", 3000)]
    counts = Counter(made)

    assert made[0] == "embed-8b"
    assert counts["moe-35b"] > counts["embed-8b"] > counts["coder-14b"] > counts["moe-122b"] > 0


def test_days_are_busy_and_nights_belong_to_other_models() -> None:
    made = asks("diurnal", 8000)
    by_day = Counter(ask.model for ask in made if 0.4 < ask.time % DAY / DAY < 0.6)
    by_night = Counter(ask.model for ask in made if not 0.1 < ask.time % DAY / DAY < 0.9)

    assert by_day.total() > 2 * by_night.total()
    assert not {name for name, _ in by_day.most_common(3)} & {
        name for name, _ in by_night.most_common(3)
    }
