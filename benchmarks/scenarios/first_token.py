"""One chat on an idle server: time to its first token, and what of it is not the engine's."""

from __future__ import annotations

import random
import statistics

from benchmarks.chat import chat_request, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens
from benchmarks.servers import Server
from benchmarks.settings import Settings

_ANSWER_TOKENS = 4
_N_PARALLEL = 2
_CONTEXT_PER_REQUEST = 4096


def first_token(prompt_tokens: int, repeats: int, *, added_limit_ms: float | None) -> Scenario:
    """Return the scenario of *repeats* chats, one after the other; a round is their median."""

    def measure(server: Server, rng: random.Random) -> Sample:
        answers = [
            answer
            for seed in range(repeats)
            for answer in server.send(
                [
                    chat_request(
                        server.model,
                        [user(text(rng, prompt_tokens))],
                        max_tokens=_ANSWER_TOKENS,
                        seed=seed,
                    )
                ]
            )
        ]
        first = statistics.median(each.first_text_seconds for each in answers)
        added = statistics.median(
            each.first_text_seconds - each.engine_prompt_seconds for each in answers
        )
        return Sample((1000 * first, 1000 * added), count_tokens(answers))

    return Scenario(
        name=f"first-token-{prompt_tokens}",
        title=f"one request, prompt of {prompt_tokens:,} tokens",
        settings=Settings("dense", _N_PARALLEL * _CONTEXT_PER_REQUEST, _N_PARALLEL),
        metrics=(
            Metric(name="first token, ms", target=1.0),
            Metric(name="added to the engine's own, ms", limit=added_limit_ms),
        ),
        measure=measure,
    )
