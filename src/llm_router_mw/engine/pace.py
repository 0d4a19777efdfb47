"""How much of a prompt goes into a step, so that answers under way keep a steady pace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

_STEP_SECONDS = 0.1
"""What a step may take while others wait for their next token."""
_FEWEST_TOKENS = 32
"""A chunk below that costs more than it spares."""
_WEIGHT = 0.3
"""Of the newest measurement."""


class Pace:
    """Measures what a prompt token costs on this machine, and sizes the chunks by that."""

    def __init__(self, n_batch: int) -> None:
        self._n_batch = n_batch
        self._token_seconds: float | None = None

    def prompt_budget(self, n_decoding: int) -> int:
        """Return how many prompt tokens a step takes beside *n_decoding* that are under way."""
        most = self._n_batch - n_decoding
        if not n_decoding or self._token_seconds is None:
            return most
        affordable = int(_STEP_SECONDS / self._token_seconds)
        return min(most, max(_FEWEST_TOKENS, affordable))

    @contextmanager
    def timed(self, plan: Sequence[tuple[Any, int]]) -> Iterator[None]:
        """Measure the step of *plan*: pairs of a request and its number of tokens."""
        began = perf_counter()
        yield
        n_tokens = sum(size for _, size in plan)
        if n_tokens >= _FEWEST_TOKENS + len(plan):
            measured = (perf_counter() - began) / n_tokens
            before = self._token_seconds
            self._token_seconds = (
                measured if before is None else before + _WEIGHT * (measured - before)
            )
