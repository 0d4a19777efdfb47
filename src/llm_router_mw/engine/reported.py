"""Tokens whose probabilities were asked for, on their way out with the text that they make."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from llm_router_mw.engine.text import TextStream
from llm_router_mw.types import ContentDelta, Delta, TokenProbs


class ReportedTokens:
    """Holds each token back until the end of its text is shown; text may wait for a stop string."""

    def __init__(self) -> None:
        # Each with the places in the text where it begins and ends.
        self._waiting: deque[tuple[TokenProbs, int, int]] = deque()
        self._n_characters = 0
        self._released: tuple[TokenProbs, ...] = ()

    def add(self, token: TokenProbs, text: TextStream) -> None:
        """Take a token that has just been fed to *text*."""
        self._waiting.append((token, self._n_characters, text.n_decoded))
        self._n_characters = text.n_decoded

    def put_into(self, deltas: Sequence[Delta], text: TextStream) -> list[Delta]:
        """Return *deltas* with the tokens that *text* has shown to their end."""
        while self._waiting and self._waiting[0][2] <= text.n_shown:
            self._released += (self._waiting.popleft()[0],)
        return self._put_released(deltas)

    def put_rest_into(self, deltas: Sequence[Delta], text: TextStream) -> list[Delta]:
        """Return the last *deltas*, with all tokens of which *text* has shown anything."""
        self._released += tuple(
            token for token, begin, _ in self._waiting if begin < text.n_shown or not text.stopped
        )
        self._waiting.clear()
        last = self._put_released(deltas)
        return [*last, ContentDelta("", self._released)] if self._released else last

    def _put_released(self, deltas: Sequence[Delta]) -> list[Delta]:
        result = list(deltas)
        for place, delta in enumerate(result):
            if isinstance(delta, ContentDelta) and self._released:
                result[place] = ContentDelta(delta.text, delta.logprobs + self._released)
                self._released = ()
        return result
