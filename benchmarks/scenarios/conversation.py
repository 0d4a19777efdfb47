"""Conversations of several turns with a recurrent model, which can't forget a part of one."""

from __future__ import annotations

import random
import statistics

from benchmarks.chat import Message, assistant, chat_request, system, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens
from benchmarks.servers import Server
from benchmarks.settings import Settings

_SYSTEM_TOKENS = 256
_QUESTION_TOKENS = 64
_CONTEXT_PER_CONVERSATION = 2048


def conversation(n_users: int, n_turns: int, answer_tokens: int) -> Scenario:
    """Return the scenario of *n_users* who each take *n_turns*, all at the same time."""

    def measure(server: Server, rng: random.Random) -> Sample:
        talks: list[list[Message]] = [[system(text(rng, _SYSTEM_TOKENS))] for _ in range(n_users)]
        started_at = ended_at = 0.0
        answers = []
        for turn in range(n_turns):
            for talk in talks:
                talk.append(user(text(rng, _QUESTION_TOKENS)))
            turn_answers = server.send(
                [
                    chat_request(server.model, talk, max_tokens=answer_tokens, seed=turn)
                    for talk in talks
                ]
            )
            for talk, answer in zip(talks, turn_answers, strict=True):
                talk.append(assistant(answer.text))
            answers += turn_answers
            started_at = started_at or min(each.sent_at for each in turn_answers)
            ended_at = max(each.ended_at for each in turn_answers)
        tokens = count_tokens(answers)
        later = answers[n_users:]
        first = statistics.median(each.first_text_seconds for each in later)
        cached = sum(each.cached_tokens for each in later)
        share = cached / sum(each.prompt_tokens for each in later)
        return Sample((tokens[1] / (ended_at - started_at), 1000 * first, 100 * share), tokens)

    return Scenario(
        name="hybrid-chat",
        title=f"{n_users} conversations of {n_turns} turns, hybrid model",
        settings=Settings("hybrid", n_users * _CONTEXT_PER_CONVERSATION, n_users),
        metrics=(
            Metric(name="tokens/s", higher_is_better=True, target=1.0),
            Metric(name="first token of later turns, ms"),
            Metric(name="their prompts' tokens from cache, %", higher_is_better=True),
        ),
        measure=measure,
    )
