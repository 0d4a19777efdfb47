"""Two models take turns where only one has room: what a swap takes, and what it costs a talk."""

from __future__ import annotations

import random
import time

from benchmarks.answer import Answer
from benchmarks.chat import Message, assistant, chat_request, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens
from benchmarks.scenarios.coming_up import ANSWER_TOKENS, N_PARALLEL, PROMPT_TOKENS, coming_up
from benchmarks.servers import Server
from benchmarks.settings import Settings

_CONTEXT_OF_TALK = 4096


def swapping(n_ctx: int, repeats: int, *, rest_seconds: float, target: float | None) -> Scenario:
    """Return the scenario of two models of *n_ctx* tokens of context, each asked *repeats* times.

    The one that was asked last has the room.
    """

    def ask(server: Server, rng: random.Random) -> list[Answer]:
        answers: list[Answer] = []
        for seed in range(repeats):
            for model in server.models:
                time.sleep(rest_seconds)
                request = chat_request(
                    model, [user(text(rng, PROMPT_TOKENS))], max_tokens=ANSWER_TOKENS, seed=seed
                )
                answers += server.send([request])
        return answers

    return coming_up(
        f"swap-{n_ctx}",
        f"one model takes the other's place, contexts of {n_ctx:,} tokens",
        Settings("dense", n_ctx, N_PARALLEL, n_models=2),
        ask,
        rest_seconds=rest_seconds,
        target=target,
    )


def returning(prompt_tokens: int, *, rest_seconds: float, target: float | None) -> Scenario:
    """Return the scenario of a talk of *prompt_tokens* that goes on after another model was asked.

    Beside it stands what the same takes where nothing comes between.
    """

    def measure(server: Server, rng: random.Random) -> Sample:
        model, other = server.models
        talk = [user(text(rng, prompt_tokens))]
        answers = [_ask(server, model, talk)]
        _go_on(talk, answers[-1], rng)
        answers.append(_ask(server, model, talk))
        _go_on(talk, answers[-1], rng)
        time.sleep(rest_seconds)
        answers.append(_ask(server, other, [user(text(rng, PROMPT_TOKENS))]))
        time.sleep(rest_seconds)
        answers.append(_ask(server, model, talk))
        _, stayed, _, back = answers
        share = back.cached_tokens / back.prompt_tokens
        return Sample(
            (1000 * back.first_text_seconds, 1000 * stayed.first_text_seconds, 100 * share),
            count_tokens(answers),
        )

    return Scenario(
        name=f"return-{prompt_tokens}",
        title=f"a talk of {prompt_tokens:,} tokens goes on after another model had the room",
        settings=Settings("dense", _CONTEXT_OF_TALK, N_PARALLEL, n_models=2),
        metrics=(
            Metric(name="first token, ms", target=target),
            Metric(name="first token if nothing came between, ms"),
            Metric(name="its prompt's tokens from cache, %", higher_is_better=True),
        ),
        measure=measure,
    )


def _ask(server: Server, model: str, talk: list[Message]) -> Answer:
    [answer] = server.send([chat_request(model, talk, max_tokens=ANSWER_TOKENS, seed=1)])
    return answer


def _go_on(talk: list[Message], answer: Answer, rng: random.Random) -> None:
    talk += [assistant(answer.text), user(text(rng, PROMPT_TOKENS))]
