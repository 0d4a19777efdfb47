"""A model that sleeps is asked something: the time to the first token, and what it held asleep."""

from __future__ import annotations

import random
import statistics
import time

from benchmarks.bare_load import bare_load_seconds
from benchmarks.chat import chat_request, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.processes import largest_private_mib
from benchmarks.scenario import Sample, Scenario, count_tokens
from benchmarks.servers import Server
from benchmarks.settings import Settings

REST_SECONDS = 2.5
"""Of idleness before what is timed: pages that were just freed are had again too cheaply."""
PROMPT_TOKENS = 16
_ANSWER_TOKENS = 2
_N_PARALLEL = 4
_IDLE_SECONDS = 1
_POLL_SECONDS = 0.05


def waking(n_ctx: int, repeats: int, *, rest_seconds: float, target: float | None) -> Scenario:
    """Return the scenario of a model with *n_ctx* tokens of context that wakes *repeats* times."""
    settings = Settings("dense", n_ctx, _N_PARALLEL, sleep_idle_seconds=_IDLE_SECONDS)

    def measure(server: Server, rng: random.Random) -> Sample:
        answers = []
        for seed in range(repeats):
            wait_until_asleep(server)
            time.sleep(rest_seconds)
            request = chat_request(
                server.model,
                [user(text(rng, PROMPT_TOKENS))],
                max_tokens=_ANSWER_TOKENS,
                seed=seed,
            )
            answers += server.send([request])
        first = statistics.median(each.first_text_seconds for each in answers)
        time.sleep(rest_seconds)
        floor = bare_load_seconds(server.file, settings)
        return Sample((1000 * first, 1000 * floor), count_tokens(answers))

    return Scenario(
        name=f"wake-{n_ctx}",
        title=f"a sleeping model is asked, context of {n_ctx:,} tokens",
        settings=settings,
        metrics=(
            Metric(name="first token, ms", target=target),
            Metric(name="llama.cpp alone: load and context, ms"),
        ),
        measure=measure,
    )


def asleep(level: str, prompt_tokens: int, *, limit_mib: float | None) -> Scenario:
    """Return the scenario of a model that has read *prompt_tokens* and sleeps at *level*."""

    def measure(server: Server, rng: random.Random) -> Sample:
        request = chat_request(
            server.model,
            [user(text(rng, prompt_tokens))],
            max_tokens=_ANSWER_TOKENS,
            seed=1,
        )
        answers = server.send([request])
        pid, awake = largest_private_mib(server.pid)
        wait_until_asleep(server)
        _, left = largest_private_mib(pid)
        return Sample((awake, left, max(0.0, 100 * (1 - left / awake))), count_tokens(answers))

    return Scenario(
        name=f"asleep-{level}",
        title=f"memory of a model asleep at level {level}, {prompt_tokens:,} tokens in its context",
        settings=Settings(
            "dense", 4096, _N_PARALLEL, sleep_idle_seconds=_IDLE_SECONDS, sleep_level=level
        ),
        metrics=(
            Metric(name="private memory awake, MiB"),
            Metric(name="private memory asleep, MiB", limit=limit_mib),
            Metric(name="given back, %", higher_is_better=True),
        ),
        measure=measure,
    )


def wait_until_asleep(server: Server) -> None:
    """Return when the model of *server* sleeps."""
    while not server.is_asleep():
        time.sleep(_POLL_SECONDS)
