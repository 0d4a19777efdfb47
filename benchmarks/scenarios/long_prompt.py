"""A long prompt comes while others read their answers: how long do these stand still?"""

from __future__ import annotations

import random

from benchmarks.answer import Answer, RefusedError
from benchmarks.chat import chat_request, user
from benchmarks.figures import percentile
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario
from benchmarks.servers import Server
from benchmarks.settings import Settings

_N_STREAMS = 4
_PROMPT_TOKENS = 64
_PIECES_BEFORE = 16
_MANY_TOKENS = 900
"""More than any stream gets to before it is cut off."""
_ROOM = 1024
"""Context per request beside the long prompt; a stream fits in it too."""


def long_prompt(prompt_tokens: int) -> Scenario:
    """Return the scenario of four streams and one prompt of *prompt_tokens*."""

    def measure(server: Server, rng: random.Random) -> Sample:
        streams = [
            chat_request(
                server.model, [user(text(rng, _PROMPT_TOKENS))], max_tokens=_MANY_TOKENS, seed=seed
            )
            for seed in range(_N_STREAMS)
        ]
        intruder = chat_request(
            server.model,
            [user(text(rng, prompt_tokens))],
            max_tokens=1,
            seed=_N_STREAMS,
            after_pieces=_PIECES_BEFORE,
            ends_all=True,
        )
        *running, long = server.send([*streams, intruder])
        gaps = [gap for answer in running for gap in _gaps_during(answer, long)]
        if not gaps:
            raise RefusedError("every stream had ended before the long prompt was read")
        values = 1000 * percentile(gaps, 50), 1000 * percentile(gaps, 99), long.first_text_seconds
        return Sample(values, (long.prompt_tokens, long.completion_tokens))

    n_parallel = _N_STREAMS + 1
    return Scenario(
        name="long-prompt",
        title=f"{_N_STREAMS} streams while a prompt of {prompt_tokens:,} tokens is read",
        settings=Settings("dense", n_parallel * (prompt_tokens + _ROOM), n_parallel),
        metrics=(
            Metric(name="gap p50, ms"),
            Metric(name="gap p99, ms", target=1.0),
            Metric(name="first token of the long prompt, s"),
        ),
        measure=measure,
        fresh_servers=True,
    )


def _gaps_during(answer: Answer, long: Answer) -> list[float]:
    """Return the gaps of *answer* that the reading of the *long* prompt touched."""
    until = long.sent_at + long.first_text_seconds
    times = answer.text_times
    return [
        gap
        for gap, start, end in zip(answer.gaps, times, times[1:], strict=False)
        if end >= long.sent_at and start <= until
    ]
