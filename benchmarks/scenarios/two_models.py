"""Clients that alternate between two models of which one fits: how often is there a swap?"""

from __future__ import annotations

import random
import re

from benchmarks.chat import chat_request, user
from benchmarks.models.words import text
from benchmarks.outcome import Metric
from benchmarks.scenario import Sample, Scenario, count_tokens, makespan
from benchmarks.servers import Server
from benchmarks.settings import Settings

_PROMPT_TOKENS = 8
_CONTEXT_PER_CLIENT = 512
_LONGEST_WAIT_SECONDS = 34.0
"""``max_wait_seconds``, and two seconds each for answers to end and for a load."""
_TIMES_FASTER = 1.67
"""Than the peer: in 0.6 of its time."""
_PART_OF_FIFO = 0.4
_LOAD = re.compile(rb": loading: |spawning server instance with name=")
"""What ours, and llama-server, print for each load."""


def two_models(n_clients: int, n_turns: int, answer_tokens: int) -> Scenario:
    """Return the scenario of *n_clients*; each sends a request when its last one is answered.

    The same is done once more strictly first come, first served, to compare with.
    """
    # All who want a model have it in the same phase. Half of the clients begin with the other one,
    # so there is one phase more than there are turns.
    fewest_loads = n_turns + 1

    def measure(server: Server, rng: random.Random) -> Sample:
        requests = [
            chat_request(
                server.models[(client + turn) % len(server.models)],
                [user(text(rng, _PROMPT_TOKENS))],
                max_tokens=answer_tokens,
                seed=client,
                follows=(turn - 1) * n_clients + client if turn else None,
            )
            for turn in range(n_turns)
            for client in range(n_clients)
        ]
        server.unload_all()
        before = _loads(server)
        answers = server.send(requests)
        loads = _loads(server) - before
        server.unload_all()
        in_order = server.send(requests, one_at_a_time=True)
        values = (
            float(loads),
            makespan(answers),
            makespan(answers) / makespan(in_order),
            max(each.first_text_seconds for each in answers),
        )
        return Sample(values, count_tokens(answers))

    return Scenario(
        name="two-models",
        title=f"{n_clients} clients alternate between two models, {n_turns} turns each",
        settings=Settings("dense", n_clients * _CONTEXT_PER_CLIENT, n_clients, n_models=2),
        metrics=(
            Metric(name="loads", limit=fewest_loads + 1.0),
            Metric(name="until all are answered, s", target=_TIMES_FASTER),
            Metric(name="as a part of strict FIFO's time", limit=_PART_OF_FIFO),
            Metric(name="longest wait for a first token, s", limit=_LONGEST_WAIT_SECONDS),
        ),
        measure=measure,
    )


def _loads(server: Server) -> int:
    return len(_LOAD.findall(server.printed()))
