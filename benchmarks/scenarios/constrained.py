"""Chats whose answers must follow a JSON schema."""

from __future__ import annotations

import random
from typing import Any

from benchmarks.chat import chat_request, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens, makespan
from benchmarks.servers import Server
from benchmarks.settings import Settings

_PROMPT_TOKENS = 64
_CONTEXT_PER_STREAM = 1024
# Long enough that the answer is always cut off by its number of tokens: a random model's would
# else be of random length.
_SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": 200,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 24},
            "kind": {"enum": ["person", "place", "thing"]},
            "count": {"type": "integer"},
        },
        "required": ["name", "kind", "count"],
        "additionalProperties": False,
    },
}
_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "list", "strict": True, "schema": _SCHEMA},
}


def constrained(n_streams: int, max_tokens: int) -> Scenario:
    """Return the scenario of *n_streams* chats, each of *max_tokens* tokens."""

    def measure(server: Server, rng: random.Random) -> Sample:
        answers = server.send(
            [
                chat_request(
                    server.model,
                    [user(text(rng, _PROMPT_TOKENS))],
                    max_tokens=max_tokens,
                    seed=seed,
                    more={"response_format": _FORMAT},
                )
                for seed in range(n_streams)
            ]
        )
        tokens = count_tokens(answers)
        return Sample((tokens[1] / makespan(answers),), tokens)

    return Scenario(
        name="json-schema",
        title=f"{n_streams} streams under a JSON schema, {max_tokens} tokens each",
        settings=Settings("dense", n_streams * _CONTEXT_PER_STREAM, n_streams),
        metrics=(Metric(name="tokens/s", higher_is_better=True, target=1.0),),
        measure=measure,
    )
