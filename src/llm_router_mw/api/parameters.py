"""The request fields that every generating endpoint shares, and what they mean for a task."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llm_router_mw.api.body import check_range
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.types import Sampling

MAX_STOPS = 16
_MAX_INT = 2**31 - 1
_SEEDS = 2**32 - 1


class StreamOptions(Struct, frozen=True):
    """OpenAI's ``stream_options``."""

    include_usage: bool | None = None


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """Fields of ``chat/completions`` and ``completions``; null is the same as absent."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n_predict: int | None = None
    """llama-server's name for ``max_tokens``."""
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self) -> Sampling:
        """Return the sampler settings.

        Raises:
            InvalidRequestError: one is out of range.
        """
        check_range("temperature", self.temperature, 0, 100)
        check_range("top_p", self.top_p, 0, 1)
        check_range("min_p", self.min_p, 0, 1)
        check_range("top_k", self.top_k, -1, _MAX_INT)
        given: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "seed": _seed(self.seed),
        }
        return Sampling(**{name: value for name, value in given.items() if value is not None})

    def token_limit(self) -> int | None:
        """Return how many tokens may be generated; None is as many as there is room for.

        Raises:
            InvalidRequestError: the limit is not positive (or -1, llama-server's "no limit").
        """
        for name in ("max_completion_tokens", "max_tokens", "n_predict"):
            value: int | None = getattr(self, name)
            if value is not None:
                if value != -1 and value < 1:
                    raise InvalidRequestError(
                        f"{name} is {value}; it must be at least 1, or -1 for no limit", param=name
                    )
                return None if value == -1 else min(value, _MAX_INT)
        return None

    def stops(self) -> tuple[str, ...]:
        """Return the stop strings.

        Raises:
            InvalidRequestError: there are too many.
        """
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MAX_STOPS:
            raise InvalidRequestError(
                f"stop holds {len(stops)} strings; at most {MAX_STOPS} are allowed", param="stop"
            )
        # An empty string occurs everywhere and would end the answer before it began.
        return tuple(stop for stop in stops if stop)


def model_name(given: str | None) -> str:
    """Return the model that the request names.

    Raises:
        InvalidRequestError: it names none.
    """
    if not given:
        raise InvalidRequestError("model name is missing from the request", param="model")
    return given


def _seed(given: int | None) -> int | None:
    """Fold *given* into llama.cpp's 32 bits, of which the highest value means "random"."""
    return None if given is None or given == -1 else given % _SEEDS
