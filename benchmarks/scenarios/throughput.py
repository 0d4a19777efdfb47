"""Many chats at once: tokens per second, all together."""

from __future__ import annotations

import random

from benchmarks.chat import chat_request, user
from benchmarks.figures import percentile
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens, makespan
from benchmarks.servers import Server
from benchmarks.settings import Settings

_PROMPT_TOKENS = 64
_CONTEXT_PER_STREAM = 512


def throughput(n_streams: int, max_tokens: int, target: float | None) -> Scenario:
    """Return the scenario of *n_streams* chats, each of *max_tokens* tokens."""

    def measure(server: Server, rng: random.Random) -> Sample:
        answers = server.send(
            [
                chat_request(
                    server.model,
                    [user(text(rng, _PROMPT_TOKENS))],
                    max_tokens=max_tokens,
                    seed=seed,
                )
                for seed in range(n_streams)
            ]
        )
        tokens = count_tokens(answers)
        gaps = [gap for answer in answers for gap in answer.gaps]
        return Sample((tokens[1] / makespan(answers), 1000 * percentile(gaps, 99)), tokens)

    plural = "streams" if n_streams > 1 else "stream"
    return Scenario(
        name=f"throughput-{n_streams}",
        title=f"{n_streams} {plural}, {max_tokens} tokens each",
        settings=Settings("dense", n_streams * _CONTEXT_PER_STREAM, n_streams),
        metrics=(
            Metric(name="tokens/s", higher_is_better=True, target=target),
            Metric(name="gap p99, ms"),
        ),
        measure=measure,
    )
