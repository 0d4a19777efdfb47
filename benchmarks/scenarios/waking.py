"""A model that sleeps is asked something: the time to the first token, and what it held asleep."""

from __future__ import annotations

import random
import time

from benchmarks.answer import Answer
from benchmarks.chat import chat_request, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.processes import largest_private_mib
from benchmarks.scenario import Sample, Scenario, count_tokens
from benchmarks.scenarios.coming_up import ANSWER_TOKENS, N_PARALLEL, PROMPT_TOKENS, coming_up
from benchmarks.servers import Server
from benchmarks.settings import Settings

_IDLE_SECONDS = 1
_POLL_SECONDS = 0.05


def waking(n_ctx: int, repeats: int, *, rest_seconds: float, target: float | None) -> Scenario:
    """Return the scenario of a model with *n_ctx* tokens of context that wakes *repeats* times."""

    def ask(server: Server, rng: random.Random) -> list[Answer]:
        answers: list[Answer] = []
        for seed in range(repeats):
            wait_until_asleep(server)
            time.sleep(rest_seconds)
            request = chat_request(
                server.model, [user(text(rng, PROMPT_TOKENS))], max_tokens=ANSWER_TOKENS, seed=seed
            )
            answers += server.send([request])
        return answers

    return coming_up(
        f"wake-{n_ctx}",
        f"a sleeping model is asked, context of {n_ctx:,} tokens",
        Settings("dense", n_ctx, N_PARALLEL, sleep_idle_seconds=_IDLE_SECONDS),
        ask,
        rest_seconds=rest_seconds,
        target=target,
    )


def asleep(level: str, prompt_tokens: int, *, limit_mib: float | None) -> Scenario:
    """Return the scenario of a model that has read *prompt_tokens* and sleeps at *level*."""

    def measure(server: Server, rng: random.Random) -> Sample:
        request = chat_request(
            server.model,
            [user(text(rng, prompt_tokens))],
            max_tokens=ANSWER_TOKENS,
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
            "dense", 4096, N_PARALLEL, sleep_idle_seconds=_IDLE_SECONDS, sleep_level=level
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
