"""Requests for chat completions, with the same sampling for everybody."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.load import Request

Message = dict[str, str]
_SAMPLING = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


def chat_request(
    model: str,
    messages: list[Message],
    *,
    max_tokens: int,
    seed: int,
    more: dict[str, Any] | None = None,
    after_seconds: float = 0.0,
    after_pieces: int = 0,
    ends_all: bool = False,
    follows: int | None = None,
) -> Request:
    """Return a streaming request; *more* fields go into its body, the rest says when to send it."""
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_SAMPLING,
        **(more or {}),
    }
    return Request(
        "/v1/chat/completions",
        json.dumps(body).encode(),
        after_seconds,
        after_pieces,
        ends_all,
        follows,
    )


def user(content: str) -> Message:
    """Return a user's message."""
    return {"role": "user", "content": content}


def system(content: str) -> Message:
    """Return a system message."""
    return {"role": "system", "content": content}


def assistant(content: str) -> Message:
    """Return an earlier answer."""
    return {"role": "assistant", "content": content}
