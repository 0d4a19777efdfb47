"""From pieces of bytes to text that may be shown: whole characters, no stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Decodes UTF-8 as it comes and ends at the first stop string.

    Only what could still become a stop string (or a character) is held back.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False
        """Whether a stop string has been found; the text before it is all there is."""
        self.n_decoded = 0
        """Characters so far, those of a stop string included."""
        self.n_shown = 0
        """Characters that have been returned."""

    def feed(self, piece: bytes) -> str:
        """Add *piece* and return the text that is now certain."""
        return self._show(self._release(self._decode(piece)))

    def finish(self) -> str:
        """Return the rest: what was held back, with half a character replaced by U+FFFD."""
        if self.stopped:
            return ""
        text = self._release(self._decode(b"", final=True)) + self._held
        self._held = ""
        return self._show(text)

    def _decode(self, piece: bytes, final: bool = False) -> str:
        text = self._decoder.decode(piece, final)
        self.n_decoded += len(text)
        return text

    def _show(self, text: str) -> str:
        self.n_shown += len(text)
        return text

    def _release(self, text: str) -> str:
        if self.stopped or not text or not self._stops:
            return "" if self.stopped else text
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        certain = len(text) - keep
        self._held = text[certain:]
        return text[:certain]


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of *text* may be the beginning of *stop*."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
