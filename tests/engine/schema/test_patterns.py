"""Regular expressions within JSON strings."""

from __future__ import annotations

import json
import re
import time

import pytest

from llm_router_mw.engine.schema.convert import schema_to_gbnf
from llm_router_mw.engine.schema.error import SchemaError
from llm_router_mw.engine.schema.patterns import pattern
from llm_router_mw.engine.schema.rules import RuleBook
from tests.engine.following import Judge


@pytest.mark.parametrize(
    ("source", "fitting", "others"),
    [
        ("^abc$", ["abc"], ["ab", "abcd", ""]),
        ("^$", [""], ["a"]),
        ("^a", ["a", "ab"], ["ba"]),
        ("a$", ["a", "ba"], ["ab"]),
        ("b", ["abc", "b"], ["ac", ""]),
        ("^a|b$", ["ax", "xb"], ["xax"]),
        ("^(a|bc)+$", ["a", "bc", "abca"], ["", "b"]),
        ("^(?:ab)?c$", ["c", "abc"], ["ac"]),
        (r"^(?<year>\d{4})-\d{2}$", ["2024-01"], ["24-01"]),
        ("^a{2}b{1,2}c{2,}d*?$", ["aabcc", "aabbccccdd"], ["abcc", "aabc"]),
        (r"^[\w.+-]+@[a-z]+\.[a-z]{2,}$", ["a.b+c@d.ef"], ["@d.ef", "a@b.c"]),
        (r"^\D\S\W$", ["ab-"], ["1b-", "a -", "abc"]),
        (r"^[^a-c\s]$", ["d", "é"], ["a", " "]),
        (r"^[^\w]$", ["-"], ["a", "_", "é"]),
        ("^[a-]$", ["a", "-"], ["b"]),
        (r'^["\\/\n\x41\u0042\u{43}]$', ['"', "\\", "/", "\n", "A", "B", "C"], ["D"]),
        (r"^\t\.\*\/\[\]$", ["\t.*/[]"], ["\tx*/[]"]),
        ("^[^]$", ["\n", "x"], ["", "xx"]),
        (r"^[\b]$", ["\b"], ["b"]),
        ("^.$", ["x", "€", '"', "\\"], ["\n", "xx"]),
        ("^x{0,250}$", ["", "x" * 250], ["x" * 251]),
        ("^a{,2}$", ["a{,2}"], ["aa"]),
    ],
)
def test_texts_that_match_are_allowed(
    texts: Judge, source: str, fitting: list[str], others: list[str]
) -> None:
    grammar = schema_to_gbnf({"pattern": source})
    for text in fitting:
        assert texts.allows(json.dumps(text, ensure_ascii=False), grammar), text
    for text in others:
        assert not texts.allows(json.dumps(text, ensure_ascii=False), grammar), text


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("(?=a)", "looking around"),
        ("(?i)a", "looking around"),
        (r"(a)\1", r"the escape \1"),
        (r"\bword", r"the escape \b"),
        (r"\p{L}", r"the escape \p"),
        ("a^b", "anchors are possible"),
        ("(a$)b", "anchors are possible"),
        ("*a", "there is nothing to repeat"),
        ("a**", "there is nothing to repeat"),
        ("a+{2}", "there is nothing to repeat"),
        ("(a", "a parenthesis is not closed"),
        ("a)", "a parenthesis is closed"),
        ("[a", "a class of characters is not closed"),
        ("[z-a]", "a range of characters"),
        (r"[a-\d]", "a range of characters"),
        ("[]", "no character fits"),
        (r"\0", "no character fits"),
        ("a\\", "ends with a backslash"),
        (r"\u{110000}", "there is no such character"),
        ("(a*)*", "something that may be empty"),
        ("(a*|b)+", "something that may be empty"),
        ("a{3,2}", "is above the highest"),
        ("a{9999999}", "repetitions are not possible"),
        ("(" * 40 + "a" + ")" * 40, "nested deeper"),
        ("((a{1,50}b?){1,50}c?){1,50}", "repeats repetitions too often"),
        ("(a|aa|aaa){1,1000}", "repeats repetitions too often"),
        ("([ab]{1,50}){1,50}", "repeats repetitions too often"),
        ("^.{1,1000}.{1,1000}$", "repeats repetitions too often"),
    ],
)
def test_what_no_grammar_can_follow_is_refused_at_once(source: str, problem: str) -> None:
    started_at = time.process_time()
    with pytest.raises(SchemaError, match=re.escape(problem)):
        pattern(source, RuleBook(), "#")
    assert time.process_time() - started_at < 1


@pytest.mark.parametrize(
    ("source", "shortest", "longest"),
    [
        ("^ab?c{2,4}$", 3, 6),
        ("^(a|bcd)$", 1, 3),
        ("^a*$", 0, None),
        ("^(a*|b)$", 0, None),
        ("a", 1, None),
    ],
)
def test_the_lengths_of_texts_are_known(source: str, shortest: int, longest: int | None) -> None:
    node = pattern(source, RuleBook(), "#")
    assert (node.shortest, node.longest) == (shortest, longest)


def test_a_pattern_whose_lengths_are_within_bounds_needs_no_check(texts: Judge) -> None:
    grammar = schema_to_gbnf({"pattern": "^[ab]{1,3}$", "minLength": 1, "maxLength": 5})
    assert texts.allows('"aba"', grammar)
