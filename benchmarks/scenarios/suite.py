"""All scenarios, in the order in which they are run and shown."""

from __future__ import annotations

from benchmarks.scenario import Scenario
from benchmarks.scenarios.coming_up import REST_SECONDS
from benchmarks.scenarios.constrained import constrained
from benchmarks.scenarios.conversation import conversation
from benchmarks.scenarios.embeddings import embeddings
from benchmarks.scenarios.first_token import first_token
from benchmarks.scenarios.long_prompt import long_prompt
from benchmarks.scenarios.shared_prompt import shared_prompt
from benchmarks.scenarios.swapping import returning, swapping
from benchmarks.scenarios.throughput import throughput
from benchmarks.scenarios.two_models import two_models
from benchmarks.scenarios.waking import asleep, waking

_ADDED_LIMIT_MS = 3.0
_ASLEEP_LIMIT_MIB = 120.0
_WAKE_TARGET = 1 / 0.5
_SWAP_TARGET = 1 / 0.85
_RETURN_TARGET = 1 / 0.3


def engine_scenarios(*, quick: bool = False) -> list[Scenario]:
    """Return the scenarios; *quick* ones find mistakes rather than figures."""
    n_tokens = 16 if quick else 128
    n_users, n_shared = (4, 200) if quick else (16, 1500)
    repeats = 2 if quick else 10
    n_swaps, rest_seconds = (1, 0.0) if quick else (2, REST_SECONDS)
    return [
        throughput(1, n_tokens, target=1.0),
        throughput(4, n_tokens, target=None),
        throughput(8, n_tokens, target=1.05),
        throughput(16, n_tokens, target=1.05),
        first_token(32, repeats, added_limit_ms=_ADDED_LIMIT_MS),
        first_token(2000, 1, added_limit_ms=None),
        shared_prompt(n_users, n_shared, apart_seconds=0.0, target=4.0),
        shared_prompt(n_users, n_shared, apart_seconds=0.5, target=2.0),
        long_prompt(600 if quick else 4000),
        embeddings(1, 2 * repeats),
        embeddings(32, repeats),
        embeddings(256, 1 if quick else 4),
        constrained(8, n_tokens // 2),
        conversation(4, 2 if quick else 5, n_tokens // 4),
        waking(4096, n_swaps, rest_seconds=rest_seconds, target=_WAKE_TARGET),
        waking(16384, n_swaps, rest_seconds=rest_seconds, target=_WAKE_TARGET),
        swapping(4096, n_swaps, rest_seconds=rest_seconds, target=_SWAP_TARGET),
        swapping(16384, n_swaps, rest_seconds=rest_seconds, target=_SWAP_TARGET),
        returning(n_shared, rest_seconds=rest_seconds, target=_RETURN_TARGET),
        two_models(6, 2 if quick else 4, 4),
        asleep("full", n_shared // 2, limit_mib=_ASLEEP_LIMIT_MIB),
        asleep("context", n_shared // 2, limit_mib=None),
    ]
