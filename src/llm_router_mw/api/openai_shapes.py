"""OpenAI's objects: how a chat and a text completion dress the same deltas."""

from __future__ import annotations

import time
import uuid
from typing import Any, ClassVar

from llm_router_mw.api.connection import encode_json
from llm_router_mw.api.sse import event
from llm_router_mw.types import FinishDelta, Timings, Usage

_SLOT = "\x00"


class CompletionShape:
    """The answer to ``completions``, whole and in chunks. One object per request."""

    id_prefix: ClassVar[str] = "cmpl-"
    object_name: ClassVar[str] = "text_completion"
    chunk_name: ClassVar[str] = "text_completion"

    def __init__(self, model: str) -> None:
        self._about = {
            "id": f"{self.id_prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        # All chunks with text are alike but for the text: build the frame once, around a slot.
        frame = self._chunk([self._choice(_SLOT, None)])
        self._before, _, self._after = frame.rpartition(encode_json(_SLOT))

    def whole(self, text: str, finish: FinishDelta) -> dict[str, Any]:
        """Return the answer as one object."""
        return {
            **self._about,
            "object": self.object_name,
            "choices": [self._whole_choice(text, finish.reason)],
            "usage": usage_body(finish.usage),
            "timings": timings_body(finish.usage, finish.timings),
        }

    def opening(self) -> bytes:
        """Return the events that come before any text."""
        return b""

    def piece(self, text: str) -> bytes:
        """Return the event that carries *text*."""
        return self._before + encode_json(text) + self._after

    def closing(self, finish: FinishDelta, include_usage: bool) -> bytes:
        """Return the events that tell how it ended; timings are in the last one."""
        timings = {"timings": timings_body(finish.usage, finish.timings)}
        choices = [self._choice("", finish.reason)]
        if not include_usage:
            return self._chunk(choices, **timings)
        return self._chunk(choices) + self._chunk([], usage=usage_body(finish.usage), **timings)

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return event({**self._about, "object": self.chunk_name, "choices": choices, **more})

    def _whole_choice(self, text: str, reason: str) -> dict[str, Any]:
        return self._choice(text, reason)

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


class ChatShape(CompletionShape):
    """The answer to ``chat/completions``."""

    id_prefix = "chatcmpl-"
    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"

    def opening(self) -> bytes:
        delta = {"role": "assistant", "content": ""}
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])

    def _whole_choice(self, text: str, reason: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        delta = {"content": text} if text else {}
        return {"index": 0, "delta": delta, "finish_reason": reason}


def usage_body(usage: Usage) -> dict[str, int]:
    """Return OpenAI's ``usage``."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def timings_body(usage: Usage, timings: Timings) -> dict[str, float]:
    """Return llama-server's ``timings``: counts, milliseconds and tokens per second."""
    return {
        **_phase("prompt", usage.prompt_tokens, timings.prompt_seconds),
        **_phase("predicted", usage.completion_tokens, timings.predicted_seconds),
    }


def _phase(name: str, tokens: int, seconds: float) -> dict[str, float]:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": seconds * 1000,
        f"{name}_per_token_ms": seconds * 1000 / tokens if tokens else 0.0,
        f"{name}_per_second": tokens / seconds if seconds > 0 else 0.0,
    }
