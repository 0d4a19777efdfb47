"""Work that a lease can hand to an instance. Tasks cross the pipe as they are."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Sampling(Struct, frozen=True, kw_only=True):
    """Sampler settings; the defaults are llama-server's."""

    temperature: float = 0.8
    """0 is greedy."""
    top_k: int = 40
    """0 keeps the whole vocabulary."""
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    """None draws a fresh one for each request."""


class GenerationTask(Struct, frozen=True, kw_only=True):
    """What chat and completion share. Base of both; never sent itself."""

    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """None runs to the model's own end or to the end of the context."""
    stop: tuple[str, ...] = ()
    """Strings that end the generation; they are not part of the answer."""


class ChatTask(GenerationTask, frozen=True, kw_only=True, tag="chat"):
    """Answer the last message of a conversation."""

    messages: tuple[dict[str, Any], ...]


class CompletionTask(GenerationTask, frozen=True, kw_only=True, tag="completion"):
    """Continue a prompt, given as text or as tokens."""

    prompt: str | tuple[int, ...]


class EmbedTask(Struct, frozen=True, kw_only=True, tag="embed"):
    """Embed each input; one vector per input, L2-normalised unless the pooling is ``rank``."""

    inputs: tuple[str | tuple[int, ...], ...]


Task = ChatTask | CompletionTask | EmbedTask
