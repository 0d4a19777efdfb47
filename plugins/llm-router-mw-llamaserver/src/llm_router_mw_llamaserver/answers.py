"""What llama-server answers, as deltas and errors."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from llm_router_mw.errors import (
    ContextExceededError,
    InvalidRequestError,
    LLMRouterError,
    ModelUnloadedError,
    NotSupportedError,
)
from llm_router_mw.types import (
    ContentDelta,
    Delta,
    EmbeddingDelta,
    FinishDelta,
    ProgressDelta,
    Timings,
    TokenProb,
    TokenProbs,
    Usage,
)

_PREFIX = "data: "
_FLOAT32_BYTES = 4
_IMPOSSIBLE = -3.4028234663852886e38
_ERRORS: dict[str, type[LLMRouterError]] = {
    "invalid_request_error": InvalidRequestError,
    "not_supported_error": NotSupportedError,
    "unavailable_error": ModelUnloadedError,
}


class Completion:
    """Reads the events of one ``POST /completion``."""

    def __init__(self) -> None:
        self.usage = Usage()
        """What it has used so far."""

    def read(self, line: str) -> Iterator[Delta]:
        """Yield what *line* says, the finish last of all.

        Raises:
            LLMRouterError: it tells of an error.
            ValueError, KeyError, TypeError: it cannot be understood.
        """
        if not line.startswith(_PREFIX):
            return  # a sign of life, or an empty line
        event = json.loads(line[len(_PREFIX) :])
        if "error" in event:
            raise error_of(event)
        timings = event.get("timings", {})
        self.usage = Usage(
            prompt_tokens=event.get("tokens_evaluated", self.usage.prompt_tokens),
            completion_tokens=event.get("tokens_predicted", self.usage.completion_tokens),
            cached_tokens=timings.get("cache_n", self.usage.cached_tokens),
        )
        progress = event.get("prompt_progress")
        if progress is not None:
            yield ProgressDelta(
                total=progress["total"],
                cached=progress["cache"],
                processed=progress["processed"],
                seconds=progress["time_ms"] / 1000,
            )
        probs = tuple(map(_token_probs, event.get("completion_probabilities", ())))
        if event["content"] or (probs and not event["stop"]):
            yield ContentDelta(event["content"], () if event["stop"] else probs)
        if event["stop"]:
            yield FinishDelta(
                "length" if event.get("stop_type") == "limit" else "stop",
                self.usage,
                Timings(
                    prompt_seconds=timings.get("prompt_ms", 0.0) / 1000,
                    predicted_seconds=timings.get("predicted_ms", 0.0) / 1000,
                ),
            )


def embeddings(answer: dict[str, Any], dimensions: int | None) -> Iterator[Delta]:
    """Yield the vectors of ``POST /v1/embeddings``, each cut to *dimensions*, and the finish."""
    for item in answer["data"]:
        vector = b64decode(item["embedding"])
        yield EmbeddingDelta(
            item["index"], vector if dimensions is None else _cut(vector, dimensions)
        )
    yield _finish(answer)


def scores(answer: dict[str, Any]) -> Iterator[Delta]:
    """Yield the scores of ``POST /v1/rerank`` and the finish."""
    for item in answer["results"]:
        yield EmbeddingDelta(item["index"], struct.pack("<f", item["relevance_score"]))
    yield _finish(answer)


def error_of(answer: dict[str, Any]) -> LLMRouterError:
    """Return the error that llama-server describes."""
    said = answer["error"]
    message = str(said["message"])
    if said.get("type") == ContextExceededError.error_type:
        return ContextExceededError(
            message, n_prompt_tokens=said.get("n_prompt_tokens"), n_ctx=said.get("n_ctx")
        )
    return _ERRORS.get(said.get("type", ""), LLMRouterError)(message)


def _finish(answer: dict[str, Any]) -> FinishDelta:
    return FinishDelta("stop", Usage(prompt_tokens=answer["usage"]["prompt_tokens"]))


def _cut(vector: bytes, dimensions: int) -> bytes:
    kept = vector[: dimensions * _FLOAT32_BYTES]
    values = struct.unpack(f"<{len(kept) // _FLOAT32_BYTES}f", kept)
    length = math.hypot(*values) or 1.0
    return struct.pack(f"<{len(values)}f", *(value / length for value in values))


def _token_probs(said: dict[str, Any]) -> TokenProbs:
    likeliest = said.get("top_logprobs", said.get("top_probs", ()))
    return TokenProbs(*_token(said), top=tuple(TokenProb(*_token(each)) for each in likeliest))


def _token(said: dict[str, Any]) -> tuple[int, str, bytes, float]:
    if "logprob" in said:
        logprob = said["logprob"]
    else:  # after the samplers, probabilities are told as such
        logprob = math.log(said["prob"]) if said["prob"] > 0 else _IMPOSSIBLE
    return said["id"], said["token"], bytes(said["bytes"]), logprob
