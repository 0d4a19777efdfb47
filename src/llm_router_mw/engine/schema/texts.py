"""One of several given texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from llm_router_mw.engine.schema.rules import RuleBook, literal

_MAX_DEPTH = 40


def any_of(texts: Sequence[str], book: RuleBook, depth: int = 0) -> str:
    """Return the expression for exactly one of *texts*.

    What several begin with is written once: llama.cpp tries the whole vocabulary with each choice
    that it has.
    """
    texts = list(dict.fromkeys(texts))
    beginning = _common_beginning(min(texts), max(texts))
    if len(texts) == 1 or depth == _MAX_DEPTH:
        return _choice([literal(text) for text in texts])
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for text in texts:
        rest = text[len(beginning) :]
        groups[rest[:1]].append(rest)
    choices = [any_of(group, book, depth + 1) for group in groups.values()]
    choice = _choice(choices)
    # Rules of their own, so that no group is nested deeper than llama.cpp is made for.
    return f"{literal(beginning)} {book.add(choice)}" if beginning else choice


def _common_beginning(first: str, last: str) -> str:
    """Return what both begin with; with the first and the last of a sorted list, so do all."""
    for place, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:place]
    return first


def _choice(expressions: list[str]) -> str:
    return expressions[0] if len(expressions) == 1 else f"( {' | '.join(expressions)} )"
