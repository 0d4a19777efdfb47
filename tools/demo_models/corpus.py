"""The questions and answers of the folder ``text``, read into entries.

One entry is a blank-line separated block: a header ``[name]``, questions (``?``), one held-out
question (``!``) that is never trained on, and one answer for each model. ``(a|b|)`` in a question
stands for any one of its alternatives. A header may carry ``key=value`` pairs or ``@plus`` and the
like: it is then a family, and makes one entry for each pair.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "text"

SHARES = {
    "start": 0.18,
    "words": 0.18,
    "inside": 0.17,
    "small_talk": 0.10,
    "facts": 0.15,
    "sums": 0.15,
    "unknown": 0.07,
}
"""How often a question comes from each file; the project's own questions are most of them."""

_ALTERNATIVES = re.compile(r"\(([^()]*\|[^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Entry:
    """One answer (for each model) with the questions that lead to it."""

    name: str
    questions: tuple[str, ...]
    held_out: str
    answers: dict[str, str]


@dataclass(frozen=True)
class Corpus:
    """All that the models learn from; ``families`` maps each file to its families of entries."""

    families: dict[str, tuple[tuple[Entry, ...], ...]]
    systems: tuple[str, ...]
    source: str

    def entries(self) -> Iterator[Entry]:
        for families in self.families.values():
            for family in families:
                yield from family

    def pick(self, rng: random.Random) -> Entry:
        """One entry at random. Within a file a family counts for less than its size, but for more
        than one entry: capitals must not crowd out the rest, and each must be seen."""
        file = rng.choices(list(SHARES), list(SHARES.values()))[0]
        families = self.families[file]
        family = rng.choices(families, [len(family) ** 0.75 for family in families])[0]
        return rng.choice(family)


class Slots:
    """Fillings for ``{word}`` and its like: what a model does not know has to look various."""

    def __init__(self, lines: list[str]) -> None:
        self._lists = {key: words.split() for key, _, words in (s.partition(":") for s in lines)}

    def fill(self, question: str, rng: random.Random) -> str:
        return _SLOT.sub(lambda match: self._one(match[1], rng), question)

    def _one(self, slot: str, rng: random.Random) -> str:
        if slot == "year":
            return str(rng.randint(1000, 2100))
        if slot == "big":
            return str(rng.randint(13, rng.choice((99, 999, 99999))))
        if slot == "babble":
            return _babble(rng)
        # Now and then a made-up word, so that "never seen" is itself a thing to learn.
        if rng.random() < 0.25:
            babble = _babble(rng)
            return babble.capitalize() if slot == "name" else babble
        return rng.choice(self._lists[slot])


def _babble(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 8)))
    syllables = (rng.choice("bdfghklmnprstvwz") + rng.choice("aeiou") for _ in range(4))
    return "".join(list(syllables)[: rng.randint(2, 4)]) + rng.choice(("", "n", "r", "s", "l"))


def read_lines(name: str) -> list[str]:
    """The lines of one text file, without comments and blank ones."""
    lines = (FOLDER / name).read_text(encoding="ascii").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("# ")]


def read_corpus() -> Corpus:
    """Read every file of the folder."""
    files = sorted(FOLDER.glob("*.txt"))
    families = {name: tuple(_read_families(name)) for name in SHARES}
    source = "".join(path.read_text(encoding="ascii") for path in files)
    return Corpus(families, tuple(read_lines("system.txt")), source)


def _read_families(file: str) -> Iterator[tuple[Entry, ...]]:
    block: list[str] = []
    for line in [*read_lines(f"{file}.txt"), "["]:
        if line.startswith("[") and block:
            yield tuple(_read_block(block))
            block = []
        block.append(line)


def _read_block(block: list[str]) -> Iterator[Entry]:
    name, _, pairs = block[0][1:].partition("]")
    questions = [line[2:] for line in block if line.startswith("? ")]
    held_out = next(line[2:] for line in block if line.startswith("! "))
    answers = dict(line.split(": ", 1) for line in block if line[0] in "gc")
    for suffix, values in _fillings(pairs.strip()):
        yield Entry(
            name + suffix,
            tuple(_fill(question, values) for question in questions),
            _fill(held_out, values),
            {model: _answer(text, values) for model, text in answers.items()},
        )


def _fillings(pairs: str) -> Iterator[tuple[str, dict[str, str]]]:
    if pairs.startswith("@"):
        # Single digits only, so that each number is one token; the times table ends at 5.
        end = 6 if pairs == "@times" else 10
        for a in range(end):
            for b in range(end):
                value = {"@plus": a + b, "@minus": a - b, "@times": a * b}[pairs]
                if value >= 0:
                    yield f"-{a}-{b}", {"a": str(a), "b": str(b), "value": str(value)}
    elif pairs:
        for pair in pairs.split(", "):
            key, _, filling = pair.partition("=")
            yield f"-{key}", {"key": key, "value": filling}
    else:
        yield "", {}


def _fill(text: str, values: dict[str, str]) -> str:
    return _SLOT.sub(lambda match: values.get(match[1], match[0]), text)


def _answer(text: str, values: dict[str, str]) -> str:
    answer = _fill(text, values)
    return answer[0].upper() + answer[1:] if text.startswith("{") else answer


def expand(question: str, rng: random.Random) -> str:
    """One of the questions that the alternatives allow, at random."""
    return _choose(question, rng.choice)


def plain(question: str) -> str:
    """The question with the first of each alternatives: the one that is measured."""
    return _choose(question, lambda options: options[0])


def _choose(question: str, choice: Callable[[list[str]], str]) -> str:
    while match := _ALTERNATIVES.search(question):
        picked = choice(match[1].split("|"))
        question = question[: match.start()] + picked + question[match.end() :]
    return " ".join(question.split())
