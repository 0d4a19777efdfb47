"""Makes traces: models of realistic sizes, and four ways in which people use them."""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Final

from llm_router_mw.simulator.trace import Ask, ModelFacts, Trace
from llm_router_mw.units import GIB

_DAY_SECONDS = 86_400.0

# Name, GiB with some context (quantised to about 4.5 bits), tokens per second of one answer.
_KINDS: Final = (
    ("chat-4b", 3.9, 120.0),
    ("chat-8b", 6.8, 80.0),
    ("embed-8b", 6.0, 4000.0),
    ("coder-14b", 11.6, 48.0),
    ("chat-1b", 1.6, 220.0),
    ("moe-30b", 21.5, 110.0),
    ("embed-small", 0.8, 9000.0),
    ("chat-24b", 17.2, 32.0),
    ("moe-35b", 37.0, 75.0),
    ("rerank", 1.3, 6000.0),
    ("vision-12b", 10.4, 55.0),
    ("chat-32b", 23.5, 26.0),
    ("chat-70b", 45.8, 14.0),
    ("coder-7b", 5.9, 85.0),
    ("moe-122b", 81.0, 38.0),
)
_SIZE_OF = {name: size for name, size, _ in _KINDS}
_START_SECONDS = 1.5
"""Of a process and its backend, before anything is read."""
_GIB_PER_SECOND = (0.8, 4.0)
"""How fast files are read: from an old disk, a good one, or partly from memory."""


def generate(kind: str, requests: int, seed: int, models: int | None = None) -> Trace:
    """Return a trace of so many *requests*, the same for the same *seed*.

    *kind* is one of ``KINDS``; *models* is how many models there are, where the kind lets one say.

    * ``zipf``: requests at random times; few models are asked for often, most rarely.
    * ``bursts``: people come, ask one model a dozen times, and leave.
    * ``agent``: a loop of embeddings, some turns of a chat model, at times a coder, and now and
      then a giant that leaves room for little else.
    * ``diurnal``: busy days, when one half of the models is popular, and quiet nights for the
      other.
    """
    return _GENERATORS[kind](requests, random.Random(seed), models)


def _zipf(requests: int, chance: random.Random, count: int | None) -> Trace:
    models = _models(chance, count or 24)
    choose = _by_popularity(chance, list(models.values()), 1.0)

    def asks() -> Iterator[Ask]:
        now = 0.0
        while True:
            now += chance.expovariate(1 / 15)
            yield _ask(chance, now, choose())

    return Trace(models, islice(asks(), requests))


def _bursts(requests: int, chance: random.Random, count: int | None) -> Trace:
    models = _models(chance, count or 24)
    choose = _by_popularity(chance, list(models.values()), 0.8)

    def visit(begins: float, name: str) -> Iterator[Ask]:
        model, now = choose(), begins
        while True:
            yield _ask(chance, now, model, name)
            if chance.random() < 1 / 12:
                return
            now += chance.expovariate(1 / 15)

    def visits() -> Iterator[Iterator[Ask]]:
        now, number = 0.0, 0
        while True:
            now += chance.expovariate(1 / 120)
            number += 1
            yield visit(now, f"visitor-{number}")

    return Trace(models, islice(_in_turn(visits()), requests))


def _diurnal(requests: int, chance: random.Random, count: int | None) -> Trace:
    models = _models(chance, count or 24)
    half = len(models) // 2
    by_day = _by_popularity(chance, list(models.values())[:half], 1.0)
    by_night = _by_popularity(chance, list(models.values())[half:], 1.0)

    def asks() -> Iterator[Ask]:
        now = 0.0
        while True:
            # From 0 at midnight to 1 at noon.
            light = (1 - math.cos(2 * math.pi * now / _DAY_SECONDS)) / 2
            now += chance.expovariate(0.02 + 0.1 * light)
            yield _ask(chance, now, (by_day if chance.random() < light else by_night)())

    return Trace(models, islice(asks(), requests))


def _agent(requests: int, chance: random.Random, count: int | None) -> Trace:
    names = ("embed-8b", "coder-14b", "moe-35b", "moe-122b")
    models = {name: _facts(chance, name, name) for name in names}
    embed, coder, chat, giant = models.values()

    def asks() -> Iterator[Ask]:
        now = 0.0
        while True:
            steps = [embed] * chance.randint(1, 3) + [chat] * chance.randint(2, 6)
            steps += [coder] * (chance.randint(1, 3) if chance.random() < 0.3 else 0)
            steps += [giant] * (chance.random() < 0.1)
            for model in steps:
                ask = _ask(chance, now, model, "agent")
                yield ask
                now += ask.tokens / model.tokens_per_second + chance.expovariate(1 / 1.5)
            now += chance.expovariate(1 / 60)

    return Trace(models, islice(asks(), requests))


def _models(chance: random.Random, count: int) -> dict[str, ModelFacts]:
    """Return *count* models: the kinds in turn, in the order of nothing."""
    names = [
        kind if number < len(_KINDS) else f"{kind}-{number // len(_KINDS) + 1}"
        for number, (kind, _, _) in ((n, _KINDS[n % len(_KINDS)]) for n in range(count))
    ]
    kinds = [_KINDS[number % len(_KINDS)][0] for number in range(count)]
    return {name: _facts(chance, name, kind) for name, kind in zip(names, kinds, strict=True)}


def _facts(chance: random.Random, name: str, kind: str) -> ModelFacts:
    speed = next(each for of, _, each in _KINDS if of == kind)
    size = _SIZE_OF[kind] * GIB
    slow, fast = _GIB_PER_SECOND
    reading = slow * (fast / slow) ** chance.random()
    overhead = min(0.4 * GIB, 0.2 * size)
    return ModelFacts(
        model=name,
        size_bytes=round(size),
        context_bytes=round(0.15 * size),
        overhead_bytes=round(overhead),
        load_seconds=round(_START_SECONDS + size / GIB / reading, 2),
        wake_seconds=round(size / GIB / reading, 2),
        tokens_per_second=speed,
        parallel=4,
    )


def _ask(chance: random.Random, now: float, model: ModelFacts, key: str = "") -> Ask:
    tokens = round(min(2000, 20 + chance.expovariate(1 / 250)))
    return Ask(time=round(now, 3), model=model.model, tokens=tokens, key=key)


def _by_popularity(
    chance: random.Random, models: Sequence[ModelFacts], exponent: float
) -> Callable[[], ModelFacts]:
    """Return what draws a model; who is popular has nothing to do with its size."""
    shuffled = list(models)
    chance.shuffle(shuffled)
    weights = list(accumulate(1 / rank**exponent for rank in range(1, len(shuffled) + 1)))
    total = weights[-1]
    return lambda: shuffled[bisect(weights, chance.random() * total)]


def _in_turn(visits: Iterator[Iterator[Ask]]) -> Iterator[Ask]:
    """Merge *visits*, of which there is no end and each begins after the one before."""
    waiting: list[tuple[float, int, Ask, Iterator[Ask]]] = []
    for number, visit in enumerate(visits):
        first = next(visit)
        while waiting and waiting[0][0] <= first.time:
            _, place, ask, going_on = waiting[0]
            yield ask
            following = next(going_on, None)
            if following is None:
                heapq.heappop(waiting)
            else:
                heapq.heapreplace(waiting, (following.time, place, following, going_on))
        heapq.heappush(waiting, (first.time, number, first, visit))


_GENERATORS = {"zipf": _zipf, "bursts": _bursts, "agent": _agent, "diurnal": _diurnal}
KINDS = tuple(_GENERATORS)
"""What ``generate`` knows."""
