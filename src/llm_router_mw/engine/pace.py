"""How much of a prompt goes into a step, so that answers under way keep a steady pace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

_STEP_SECONDS = 0.1
"""What a step may take while others wait for their next token."""
_LONGEST_SECONDS = 10.0
"""What any step may take: between steps a worker gives a sign of life and hears of new things."""
_UNMEASURED_TOKENS = 256
"""Of prompts in a step before anything has been measured, for machines of any slowness."""
_FEWEST_TOKENS = 24
"""A chunk below that costs more than it spares."""
_ROWS_AT_ONCE = 16
"""Matrices are multiplied with so many rows at once; those left over cost up to twice as much."""
_DEEP = 512
"""Tokens before a chunk from which on attention is what takes the time."""
_ROWS_AT_ONCE_DEEP = 64
"""Attention is computed for so many rows at once; fewer of them can even take longer."""
_WEIGHT = 0.3
"""Of the newest measurement."""


class Pace:
    """Measures what a prompt token costs on this machine, and sizes the chunks by that."""

    def __init__(self, n_batch: int, *, unified: bool = True) -> None:
        """Plan steps of *n_batch* rows at most; *unified* contexts compute all of them together."""
        self._n_batch = n_batch
        self._unified = unified
        self._token_seconds: float | None = None

    def prompt_budget(self, n_decoding: int, depth: int = 0, *, n_paused: int = 0) -> int:
        """Return how many prompt tokens a step takes beside *n_decoding* answers.

        The prompt that is processed has *depth* tokens behind it already. *n_paused* more answers
        are under way, but have no part in this step.
        """
        most = self._n_batch - n_decoding
        if self._token_seconds is None:
            return min(most, _UNMEASURED_TOKENS)
        seconds = _STEP_SECONDS if n_decoding or n_paused else _LONGEST_SECONDS
        wanted = max(_FEWEST_TOKENS, int(seconds / self._token_seconds))
        unit = _ROWS_AT_ONCE if depth < _DEEP else _ROWS_AT_ONCE_DEEP
        # In a split context llama.cpp takes one row of each sequence first, then those left over.
        beside = n_decoding if self._unified else -1
        return min(most, _round_up(beside + wanted, unit) - beside)

    @property
    def tokens_per_second(self) -> float | None:
        """How fast prompts are computed; None where nothing has been measured."""
        return None if self._token_seconds is None else 1 / self._token_seconds

    def seconds(self, n_tokens: int) -> float | None:
        """Return how long *n_tokens* of a prompt take; None where nothing has been measured."""
        return None if self._token_seconds is None else n_tokens * self._token_seconds

    @contextmanager
    def timed(self, plan: Sequence[tuple[Any, int]]) -> Iterator[None]:
        """Measure the step of *plan*: pairs of a request and its number of tokens."""
        began = perf_counter()
        yield
        n_tokens = sum(size for _, size in plan)
        if n_tokens >= _ROWS_AT_ONCE + len(plan):
            measured = (perf_counter() - began) / n_tokens
            before = self._token_seconds
            self._token_seconds = (
                measured if before is None else before + _WEIGHT * (measured - before)
            )


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
