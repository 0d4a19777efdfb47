"""Whole answers, for app code that does not stream."""

from __future__ import annotations

from msgspec import Struct

from llm_router_mw.types.delta import FinishReason, Timings, Usage


class TextReply(Struct, frozen=True, kw_only=True):
    """The answer to a chat or completion task."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings = Timings()


class EmbeddingReply(Struct, frozen=True, kw_only=True):
    """One vector per input, in the order of the inputs; each holds ``n_embd`` floats."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
