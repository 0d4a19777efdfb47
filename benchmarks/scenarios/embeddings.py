"""Inputs embedded per second."""

from __future__ import annotations

import json
import random

from benchmarks.load import Request
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario
from benchmarks.servers import Server
from benchmarks.settings import Settings

_INPUT_TOKENS = 32
_N_PARALLEL = 32
_CONTEXT_PER_INPUT = 512


def embeddings(n_inputs: int, repeats: int) -> Scenario:
    """Return the scenario of *repeats* requests, one after the other, of *n_inputs* each."""

    def measure(server: Server, rng: random.Random) -> Sample:
        seconds = 0.0
        tokens = 0
        for _ in range(repeats):
            inputs = [text(rng, _INPUT_TOKENS) for _ in range(n_inputs)]
            body = json.dumps({"model": server.model, "input": inputs}).encode()
            (answer,) = server.send([Request("/v1/embeddings", body)])
            if len(answer.events[0][1]["data"]) != n_inputs:
                raise ValueError(f"{server.name} did not embed all inputs")
            seconds += answer.seconds
            tokens += answer.prompt_tokens
        return Sample((n_inputs * repeats / seconds,), (tokens, 0))

    return Scenario(
        name=f"embeddings-{n_inputs}",
        title=f"embeddings, {n_inputs} input{'s' * (n_inputs > 1)} of {_INPUT_TOKENS} tokens",
        settings=Settings("encoder", _N_PARALLEL * _CONTEXT_PER_INPUT, _N_PARALLEL, "mean"),
        metrics=(Metric(name="inputs/s", higher_is_better=True, target=1.0),),
        measure=measure,
    )
