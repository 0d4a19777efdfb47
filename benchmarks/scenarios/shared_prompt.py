"""Many users of one system prompt, which nobody has computed yet."""

from __future__ import annotations

import random
import statistics

from benchmarks.chat import chat_request, system, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens, makespan
from benchmarks.servers import Server
from benchmarks.settings import Settings

_QUESTION_TOKENS = 32
_ANSWER_TOKENS = 32
_CONTEXT_PER_USER = 2048


def shared_prompt(
    n_users: int, system_tokens: int, *, apart_seconds: float, target: float
) -> Scenario:
    """Return the scenario of *n_users*, who come *apart_seconds* after one another."""

    def measure(server: Server, rng: random.Random) -> Sample:
        shared = system(text(rng, system_tokens))
        answers = server.send(
            [
                chat_request(
                    server.model,
                    [shared, user(text(rng, _QUESTION_TOKENS))],
                    max_tokens=_ANSWER_TOKENS,
                    seed=number,
                    after_seconds=number * apart_seconds,
                )
                for number in range(n_users)
            ]
        )
        first = statistics.median(each.first_text_seconds for each in answers)
        return Sample((makespan(answers), first), count_tokens(answers))

    how = f"{apart_seconds:g} s apart" if apart_seconds else "at once"
    return Scenario(
        name=f"shared-prompt-{'staggered' if apart_seconds else 'at-once'}",
        title=f"{n_users} users {how}, system prompt of {system_tokens:,} tokens",
        settings=Settings("dense", n_users * _CONTEXT_PER_USER, n_users),
        metrics=(
            Metric(name="until all are answered, s", target=target),
            Metric(name="first token p50, s"),
        ),
        measure=measure,
        fresh_servers=True,
    )
