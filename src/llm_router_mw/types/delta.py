"""What an instance answers, piece by piece; structured in the worker, the same for every door."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from llm_router_mw.types.failure import Failure

FinishReason = Literal["stop", "length", "cancelled"]


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens counted by the worker."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's tokens, those that did not have to be computed."""

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        """Return the tokens of both together."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


class Timings(Struct, frozen=True, kw_only=True):
    """Seconds of prompt processing and of generation (llama-server's ``timings``)."""

    prompt_seconds: float = 0.0
    predicted_seconds: float = 0.0


class TokenProb(Struct, frozen=True):
    """A token that could have been chosen."""

    id: int
    text: str
    """Its whole characters; a part of one is left out."""
    raw: bytes
    """Its bytes, whole characters or not."""
    logprob: float
    """Natural logarithm of its probability; the lowest 32-bit float stands for impossible."""


class TokenProbs(TokenProb, frozen=True):
    """A token of the answer, and the likeliest ones in its place."""

    top: tuple[TokenProb, ...] = ()
    """The likeliest first; the chosen one need not be among them."""


class ContentDelta(Struct, frozen=True, tag="content"):
    """Text of the answer; never half a character."""

    text: str
    logprobs: tuple[TokenProbs, ...] = ()
    """The tokens that end in this text, if ``n_probs`` asked for them."""


class EmbeddingDelta(Struct, frozen=True, tag="embedding"):
    """One vector: ``index`` of its input, little-endian float32 ``vector`` of ``n_embd`` values."""

    index: int
    vector: bytes


class ProgressDelta(Struct, frozen=True, tag="progress"):
    """How far a prompt has been processed, for requests that asked for it."""

    total: int
    cached: int
    processed: int
    """Tokens that the context holds, the cached ones included."""
    seconds: float


class FinishDelta(Struct, frozen=True, tag="finish"):
    """The last delta of a request that went well (or was cancelled)."""

    reason: FinishReason
    usage: Usage
    timings: Timings = Timings()


class FailureDelta(Struct, frozen=True, tag="failure"):
    """The last delta of a request that failed; it is raised as the error that it names."""

    failure: Failure


Delta = ContentDelta | EmbeddingDelta | ProgressDelta | FinishDelta | FailureDelta
"""A request yields any number of content or embedding deltas, then one finish or failure."""
