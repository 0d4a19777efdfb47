"""Two models take turns where only one has room: the time to the first token of each."""

from __future__ import annotations

import random
import statistics
import time

from benchmarks.bare_load import bare_load_seconds
from benchmarks.chat import chat_request, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens
from benchmarks.scenarios.waking import PROMPT_TOKENS
from benchmarks.servers import Server
from benchmarks.settings import Settings

_ANSWER_TOKENS = 2
_N_PARALLEL = 4


def swapping(n_ctx: int, repeats: int, *, rest_seconds: float, target: float | None) -> Scenario:
    """Return the scenario of two models of *n_ctx* tokens of context, each asked *repeats* times.

    The one that was asked last has the room.
    """
    settings = Settings("dense", n_ctx, _N_PARALLEL, n_models=2)

    def measure(server: Server, rng: random.Random) -> Sample:
        answers = []
        for seed in range(repeats):
            for model in server.models:
                time.sleep(rest_seconds)
                request = chat_request(
                    model, [user(text(rng, PROMPT_TOKENS))], max_tokens=_ANSWER_TOKENS, seed=seed
                )
                answers += server.send([request])
        first = statistics.median(each.first_text_seconds for each in answers)
        time.sleep(rest_seconds)
        floor = bare_load_seconds(server.file, settings)
        return Sample((1000 * first, 1000 * floor), count_tokens(answers))

    return Scenario(
        name=f"swap-{n_ctx}",
        title=f"one model takes the other's place, contexts of {n_ctx:,} tokens",
        settings=settings,
        metrics=(
            Metric(name="first token, ms", target=target),
            Metric(name="llama.cpp alone: load and context, ms"),
        ),
        measure=measure,
    )
