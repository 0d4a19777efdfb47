"""OpenAI's objects: how a chat and a text completion dress the same deltas."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec import Struct

from llm_router_mw.api.connection import encode_json
from llm_router_mw.api.logprobs import LogprobStyle
from llm_router_mw.api.sse import event
from llm_router_mw.types import ContentDelta, FinishDelta, ProgressDelta, Timings, TokenProbs, Usage

_SLOT = "\x00"


class Choice(Struct, frozen=True):
    """One whole answer."""

    pieces: tuple[ContentDelta, ...]
    finish: FinishDelta

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> list[TokenProbs]:
        return [token for piece in self.pieces for token in piece.logprobs]


class CompletionShape:
    """The answer to ``completions``, whole and in chunks. One object per request."""

    id_prefix: ClassVar[str] = "cmpl-"
    object_name: ClassVar[str] = "text_completion"
    chunk_name: ClassVar[str] = "text_completion"

    def __init__(self, model: str, count: int = 1, style: LogprobStyle | None = None) -> None:
        self.count = count
        """Choices that are asked for."""
        self._style = style
        self._offsets = [0] * count
        """Characters of each choice that have been told of."""
        self._about = {
            "id": f"{self.id_prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        # All chunks with text are alike but for the text: build the frame once, around a slot.
        frames = [self._chunk([self._choice(_SLOT, None, number)]) for number in range(count)]
        self._frames = [frame.rpartition(encode_json(_SLOT)) for frame in frames]

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Return the answer as one object."""
        usage, timings = total([choice.finish for choice in choices])
        return {
            **self._about,
            "object": self.object_name,
            "choices": [
                self._with_logprobs(
                    self._whole_choice(choice.text, choice.finish.reason, number),
                    choice.tokens,
                    number,
                )
                for number, choice in enumerate(choices)
            ],
            "usage": usage_body(usage),
            "timings": timings_body(usage, timings),
        }

    def opening(self) -> bytes:
        """Return the events that come before any text."""
        return b""

    def piece(self, delta: ContentDelta, number: int = 0) -> bytes:
        """Return the event that carries *delta* of choice *number*."""
        if delta.logprobs:
            choice = self._choice(delta.text, None, number)
            return self._chunk([self._with_logprobs(choice, delta.logprobs, number)])
        before, _, after = self._frames[number]
        return before + encode_json(delta.text) + after

    def progress(self, delta: ProgressDelta, number: int) -> bytes:
        """Return the event that tells how far the prompt of choice *number* has been processed."""
        progress = {
            "total": delta.total,
            "cache": delta.cached,
            "processed": delta.processed,
            "time_ms": round(delta.seconds * 1000),
        }
        return self._chunk([self._choice("", None, number)], prompt_progress=progress)

    def end(self, finish: FinishDelta, number: int) -> bytes:
        """Return the event that tells how choice *number* ended while others go on."""
        return self._chunk([self._choice("", finish.reason, number)])

    def closing(self, finishes: Sequence[FinishDelta], number: int, include_usage: bool) -> bytes:
        """Return the events that end everything; choice *number* was the last of all *finishes*.

        Timings are in the last one.
        """
        usage, timings = total(finishes)
        more = {"timings": timings_body(usage, timings)}
        choices = [self._choice("", finishes[-1].reason, number)]
        if not include_usage:
            return self._chunk(choices, **more)
        return self._chunk(choices) + self._chunk([], usage=usage_body(usage), **more)

    def _with_logprobs(
        self, choice: dict[str, Any], tokens: Sequence[TokenProbs], number: int
    ) -> dict[str, Any]:
        if self._style is None:
            return choice
        return {**choice, "logprobs": self._logprobs(self._style, tokens, number)}

    def _logprobs(
        self, style: LogprobStyle, tokens: Sequence[TokenProbs], number: int
    ) -> dict[str, Any]:
        offset = self._offsets[number]
        self._offsets[number] += sum(len(token.text) for token in tokens)
        return style.columns(tokens, offset)

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return event({**self._about, "object": self.chunk_name, "choices": choices, **more})

    def _whole_choice(self, text: str, reason: str, number: int) -> dict[str, Any]:
        return self._choice(text, reason, number)

    def _choice(self, text: str, reason: str | None, number: int) -> dict[str, Any]:
        return {"index": number, "text": text, "logprobs": None, "finish_reason": reason}


class ChatShape(CompletionShape):
    """The answer to ``chat/completions``."""

    id_prefix = "chatcmpl-"
    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"

    def _logprobs(
        self, style: LogprobStyle, tokens: Sequence[TokenProbs], number: int
    ) -> dict[str, Any]:
        return style.content(tokens)

    def opening(self) -> bytes:
        delta = {"role": "assistant", "content": ""}
        return b"".join(
            self._chunk([{"index": number, "delta": delta, "finish_reason": None}])
            for number in range(self.count)
        )

    def _whole_choice(self, text: str, reason: str, number: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"index": number, "message": message, "logprobs": None, "finish_reason": reason}

    def _choice(self, text: str, reason: str | None, number: int) -> dict[str, Any]:
        delta = {"content": text} if text else {}
        return {"index": number, "delta": delta, "finish_reason": reason}


def total(finishes: Sequence[FinishDelta]) -> tuple[Usage, Timings]:
    """Return usage and timings of answers to one prompt, made side by side.

    The prompt is counted once. It was cached as far as it was for the answer that found least.
    """
    usages = [finish.usage for finish in finishes]
    timings = [finish.timings for finish in finishes]
    usage = Usage(
        prompt_tokens=usages[0].prompt_tokens,
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=min(usage.cached_tokens for usage in usages),
    )
    longest = Timings(
        prompt_seconds=max(timing.prompt_seconds for timing in timings),
        predicted_seconds=max(timing.predicted_seconds for timing in timings),
    )
    return usage, longest


def usage_body(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's ``usage``."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def timings_body(usage: Usage, timings: Timings) -> dict[str, float]:
    """Return llama-server's ``timings``: counts, milliseconds and tokens per second."""
    return {
        "cache_n": usage.cached_tokens,
        **_phase("prompt", usage.prompt_tokens - usage.cached_tokens, timings.prompt_seconds),
        **_phase("predicted", usage.completion_tokens, timings.predicted_seconds),
    }


def _phase(name: str, tokens: int, seconds: float) -> dict[str, float]:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": seconds * 1000,
        f"{name}_per_token_ms": seconds * 1000 / tokens if tokens else 0.0,
        f"{name}_per_second": tokens / seconds if seconds > 0 else 0.0,
    }
