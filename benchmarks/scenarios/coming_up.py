"""A model that has to come up before it can answer: the time to its first token."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from benchmarks.answer import Answer
from benchmarks.bare_load import bare_load_seconds
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens
from benchmarks.servers import Server
from benchmarks.settings import Settings

REST_SECONDS = 2.5
"""Of idleness before what is timed: pages that were just freed are had again too cheaply."""
PROMPT_TOKENS = 16
ANSWER_TOKENS = 2
N_PARALLEL = 4


def coming_up(
    name: str,
    title: str,
    settings: Settings,
    ask: Callable[[Server, random.Random], list[Answer]],
    *,
    rest_seconds: float,
    target: float | None,
) -> Scenario:
    """Return the scenario of answers, got by *ask*, for each of which a model comes up.

    Beside them stands what llama.cpp alone needs to load it and to make its context.
    """

    def measure(server: Server, rng: random.Random) -> Sample:
        answers = ask(server, rng)
        first = statistics.median(each.first_text_seconds for each in answers)
        time.sleep(rest_seconds)
        floor = bare_load_seconds(server.file, settings)
        return Sample((1000 * first, 1000 * floor), count_tokens(answers))

    return Scenario(
        name=name,
        title=title,
        settings=settings,
        metrics=(
            Metric(name="first token, ms", target=target),
            Metric(name="llama.cpp alone: load and context, ms"),
        ),
        measure=measure,
    )
