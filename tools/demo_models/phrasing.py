"""How people really type: other words for the same, fillers, case, punctuation, slips."""

from __future__ import annotations

import random
import re

from .corpus import read_lines

_ASKS = re.compile(
    r"(what|how|which|why|who|where|when|whose|can|could|do|does|is|are|will|may|must|should|am"
    r"|in which|in what|at what|from which)\b"
)
_SMALL = re.compile(
    r"(a|an|the|do|does|is|are|i|it|my|you|your|to|of|for|in|on|what|how|which|can|there|and)"
)
_KEEP = re.compile(r"[A-Z/_.0-9]")


def finished(question: str) -> str:
    """The question as a careful person writes it: a capital first, and a mark at the end."""
    mark = "?" if _ASKS.match(question.lower()) or "what's" in question else "."
    if not question[-1].isalnum() and question[-1] != ")":
        mark = ""
    return question[0].upper() + question[1:] + mark


def normal(question: str) -> str:
    """The question without case and marks, to compare two of them."""
    return re.sub(r"[^a-z0-9+*/-]+", " ", question.lower()).strip()


class Phrasing:
    """Varies a question. ``forbidden`` are the held-out ones, which must never come out."""

    def __init__(self, forbidden: frozenset[str]) -> None:
        lines = read_lines("openers.txt")
        self._before = [line[2:] for line in lines if line.startswith("<")]
        self._after = [line[2:] for line in lines if line.startswith(">")]
        pairs = [line[2:].split(" | ") for line in lines if line.startswith("=")]
        self._same = [(re.compile(rf"\b{re.escape(a)}(?!\w)"), b) for a, b in pairs]
        self._forbidden = forbidden

    def vary(self, question: str, rng: random.Random) -> str:
        """The question in one of very many shapes, or as it is if it became a held-out one."""
        varied = self._dress(self._reword(question, rng), rng)
        return finished(question) if normal(varied) in self._forbidden else varied

    def _reword(self, question: str, rng: random.Random) -> str:
        for chance in (0.45, 0.2):
            if rng.random() > chance:
                break
            fitting = [(old, new) for old, new in self._same if old.search(question)]
            if fitting:
                old, new = rng.choice(fitting)
                question = old.sub(new, question, count=1)
        return question

    def _dress(self, question: str, rng: random.Random) -> str:
        if rng.random() < 0.12:
            question = _keywords(question, rng)
        if rng.random() < 0.18:
            question = f"{rng.choice(self._before)} {question}"
        if rng.random() < 0.08:
            question = f"{question} {rng.choice(self._after)}"
        if rng.random() < 0.18:
            question = _slip(question, rng)
        style = rng.random()
        if style < 0.45:
            return finished(question)
        if style < 0.75:
            question = question if rng.random() < 0.4 else question.lower()
            return question + rng.choice(("", "", "?", " ?", ".", "!"))
        if style < 0.95:
            return question[0].upper() + question[1:] + rng.choice(("", "?", "??", "!", "."))
        return question.upper() + rng.choice(("", "?", "!"))


def _keywords(question: str, rng: random.Random) -> str:
    """The words that matter, as people type them into a search box."""
    words = [word for word in question.split() if not _SMALL.fullmatch(word) or rng.random() < 0.3]
    return " ".join(words) if sum(len(word) > 3 for word in words) > 1 else question


def _slip(question: str, rng: random.Random) -> str:
    """One slip of the finger in one longer word, or one short word left out."""
    words = question.split()
    at = rng.randrange(len(words))
    word = words[at]
    if len(words) > 3 and rng.random() < 0.3 and len(word) < 5:
        del words[at]
    elif len(word) > 3 and not _KEEP.search(word):
        i = rng.randrange(len(word) - 1)
        letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
        words[at] = rng.choice(
            (
                word[:i] + word[i + 1] + word[i] + word[i + 2 :],
                word[:i] + word[i + 1 :],
                word[:i] + word[i] + word[i:],
                word[:i] + letter + word[i + 1 :],
            )
        )
    return " ".join(words)
