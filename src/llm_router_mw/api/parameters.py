"""The request fields that every generating endpoint shares, and what they mean for a task."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from llm_router_mw.api.body import MAX_INT, MAX_ITEMS, check_range
from llm_router_mw.api.lora import LoraScale, lora_scales
from llm_router_mw.api.sampling import SamplingRequest
from llm_router_mw.errors import InvalidRequestError

MAX_STOPS = 16
MAX_CHOICES = 256
"""As many requests as an instance may ever decode at once."""


class StreamOptions(Struct, frozen=True):
    """OpenAI's ``stream_options``."""

    include_usage: bool | None = None


class GenerationRequest(SamplingRequest, frozen=True, kw_only=True):
    """Fields of ``chat/completions`` and ``completions``; null is the same as absent."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n_predict: int | None = None
    """llama-server's name for ``max_tokens``."""
    stop: str | Annotated[list[str], Meta(max_length=MAX_ITEMS)] | None = None
    n: int | None = None
    n_cmpl: int | None = None
    """llama-server's name for ``n``."""
    lora: list[LoraScale] | None = None
    cache_prompt: bool | None = None
    return_progress: bool | None = None
    t_max_predict_ms: int | None = None
    n_keep: int | None = None
    n_discard: int | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def probs_field(self) -> str:
        """The field that says how many probabilities are wanted."""
        return "n_probs" if self.n_probs else "logprobs"

    def task_fields(self) -> dict[str, Any]:
        """Return the fields that all generating tasks have.

        Raises:
            InvalidRequestError: one is out of range.
        """
        check_range("t_max_predict_ms", self.t_max_predict_ms, -1, MAX_INT)
        check_range("n_keep", self.n_keep, -1, MAX_INT)
        check_range("n_discard", self.n_discard, 0, MAX_INT)
        limit_ms = self.t_max_predict_ms or 0
        return {
            "sampling": self.sampling(),
            "max_tokens": self.token_limit(),
            "stop": self.stops(),
            "lora": lora_scales(self.lora),
            "cache_prompt": self.cache_prompt is not False,
            "return_progress": bool(self.return_progress and self.stream),
            "max_seconds": limit_ms / 1000 if limit_ms > 0 else None,
            "n_keep": self.n_keep or 0,
            "n_discard": self.n_discard or 0,
        }

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
                return None if value == -1 else min(value, MAX_INT)
        return None

    def choices(self) -> int:
        """Return how many answers are wanted.

        Raises:
            InvalidRequestError: none are; how many there may be, the model's lease tells.
        """
        for name in ("n_cmpl", "n"):
            value: int | None = getattr(self, name)
            check_range(name, value, 1, MAX_CHOICES)
            if value is not None:
                return value
        return 1

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
