"""What a scenario is: settings for both sides, and one measurement on a running server."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.answer import Answer
from benchmarks.outcome import Metric
from benchmarks.servers import Server
from benchmarks.settings import Settings


@dataclass(frozen=True)
class Sample:
    """One round on one side."""

    values: tuple[float, ...]
    """One per metric of the scenario."""
    tokens: tuple[int, int]
    """Tokens of the prompts and of the answers: if the sides differ in them, so does the work."""


@dataclass(frozen=True)
class Scenario:
    """One thing to compare."""

    name: str
    title: str
    settings: Settings
    metrics: tuple[Metric, ...]
    measure: Callable[[Server, random.Random], Sample]
    """Draws its prompts from a source that is the same on all sides, and new in each round."""
    fresh_servers: bool = False
    """Start the server anew for each round, and only one at a time."""


def count_tokens(answers: Iterable[Answer]) -> tuple[int, int]:
    """Return the tokens of prompts and answers, all together."""
    read = list(answers)
    return sum(each.prompt_tokens for each in read), sum(each.completion_tokens for each in read)


def makespan(answers: Iterable[Answer]) -> float:
    """Return the seconds from the first request to the end of the last answer."""
    read = list(answers)
    return max(each.ended_at for each in read) - min(each.sent_at for each in read)
