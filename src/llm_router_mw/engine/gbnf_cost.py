"""Which grammars llama.cpp can take: it trusts them, and would run for ever or crash with some."""

from __future__ import annotations

from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

from llm_router_mw.engine.gbnf import GBNFError, Item, Rules, Sequence

ROOT = "root"
_MAX_ELEMENTS = 200_000
"""With all repetitions written out; llama.cpp keeps eight bytes and more for each."""
_MAX_PATHS = 1000
"""Ways from a rule to its first terminal; llama.cpp tries the whole vocabulary with each."""
_MAX_CHAIN = 2048
"""Rules that begin with each other in turn; llama.cpp calls itself for each."""


def check_cost(rules: Rules) -> None:
    """Check that llama.cpp can work with *rules* in bounded time and memory.

    Raises:
        GBNFError: it cannot.
    """
    _check_references(rules)
    size = sum(_size(sequence) for alternatives in rules.values() for sequence in alternatives)
    if size > _MAX_ELEMENTS:
        raise GBNFError(
            f"with its repetitions it has {size} elements; at most {_MAX_ELEMENTS} are possible"
        )
    empty = _rules_that_may_be_empty(rules)
    beginnings = {name: _beginnings(name, rules[name], empty) for name in rules}
    paths = {name: len(alternatives) for name, alternatives in rules.items()}
    chain = dict.fromkeys(rules, 1)
    for name in _callees_first(beginnings):
        for callee, times in beginnings[name].items():
            paths[name] += paths[callee] * times
            chain[name] = max(chain[name], chain[callee] + times)
        if paths[name] > _MAX_PATHS or chain[name] > _MAX_CHAIN:
            raise GBNFError(
                f"the rule {_shown(name)} can begin in too many ways; "
                f"at most {_MAX_PATHS} are possible"
            )


def _check_references(rules: Rules) -> None:
    if ROOT not in rules:
        raise GBNFError(f"there is no rule {ROOT!r}")
    for name, alternatives in rules.items():
        for sequence in alternatives:
            for item in sequence:
                if item.rule and item.rule not in rules:
                    raise GBNFError(
                        f"the rule {_shown(name)} refers to {item.rule!r}, which is not defined"
                    )


def _size(sequence: Sequence) -> int:
    return sum((item.size + 3) * item.n_copies for item in sequence) + 1


def _rules_that_may_be_empty(rules: Rules) -> set[str]:
    empty: set[str] = set()
    # Alternatives that are empty if these rules are, found by each of the rules.
    waiting: defaultdict[str, list[tuple[str, set[str]]]] = defaultdict(list)
    found: list[str] = []
    for name, alternatives in rules.items():
        for sequence in alternatives:
            needed = {item.rule for item in sequence if item.low}
            if not needed:
                found.append(name)
            elif "" not in needed:
                for rule in needed:
                    waiting[rule].append((name, needed))
    while found:
        rule = found.pop()
        if rule in empty:
            continue
        empty.add(rule)
        for name, needed in waiting[rule]:
            needed.discard(rule)
            if not needed:
                found.append(name)
    return empty


def _beginnings(name: str, alternatives: list[Sequence], empty: set[str]) -> dict[str, int]:
    """Return the rules with which the rule *name* may begin, and how often each."""
    found: defaultdict[str, int] = defaultdict(int)
    for sequence in alternatives:
        for place, item in enumerate(sequence):
            # A rule may end with itself: what has been seen is not looked at again.
            if item.rule and not (item.rule == name and place == len(sequence) - 1 and place):
                found[item.rule] += item.n_copies if item.rule in empty else 1
            if not _may_be_empty(item, empty):
                break
    return found


def _may_be_empty(item: Item, empty: set[str]) -> bool:
    return item.low == 0 or item.rule in empty


def _callees_first(beginnings: dict[str, dict[str, int]]) -> list[str]:
    try:
        return list(TopologicalSorter(beginnings).static_order())
    except CycleError as error:
        names = [name for name in error.args[1] if not name.startswith("(")]
        at = f"the rule {names[0]!r}" if names else "a group"
        raise GBNFError(f"{at} begins with itself (left recursion)") from error


def _shown(name: str) -> str:
    return "of a group" if name.startswith("(") else repr(name)
