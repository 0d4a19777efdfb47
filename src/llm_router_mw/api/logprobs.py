"""How the probabilities of tokens are written: OpenAI's shapes, with llama-server's ``id``."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

from msgspec import Struct

from llm_router_mw.types import TokenProb, TokenProbs

MAX_TOP_LOGPROBS = 20
"""As OpenAI's; llama-server's own ``n_probs`` may ask for more."""


class LogprobStyle(Struct, frozen=True):
    """What a request wants to know of its tokens."""

    n_top: int = 0
    """Likeliest tokens beside each chosen one."""
    as_probabilities: bool = False
    """Whether to write llama-server's ``prob`` in the place of the logarithm."""

    def content(self, tokens: Sequence[TokenProbs]) -> dict[str, Any]:
        """Return *tokens* as in chat completions."""
        top_name = "top_probs" if self.as_probabilities else "top_logprobs"
        return {
            "content": [
                {
                    **self._one(token),
                    top_name: [self._one(other) for other in token.top[: self.n_top]],
                }
                for token in tokens
            ]
        }

    def columns(self, tokens: Sequence[TokenProbs], offset: int) -> dict[str, Any]:
        """Return *tokens*, the first of which begins at character *offset*, as in completions.

        llama-server's ``content`` is there too.
        """
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                {other.text: other.logprob for other in token.top[: self.n_top]} for token in tokens
            ],
            "text_offset": offsets,
            **self.content(tokens),
        }

    def _one(self, token: TokenProb) -> dict[str, Any]:
        value = exp(token.logprob) if self.as_probabilities else token.logprob
        return {
            "id": token.id,
            "token": token.text,
            "bytes": list(token.raw),
            "prob" if self.as_probabilities else "logprob": value,
        }
