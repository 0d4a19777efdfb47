"""What is a grammar, and which grammars llama.cpp can take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_cpp import llama_grammar

from llm_router_mw.engine.gbnf import GBNFError, parse
from llm_router_mw.engine.gbnf_cost import check_cost
from llm_router_mw.engine.grammar import Grammar
from llm_router_mw.errors import InvalidRequestError
from tests.engine.following import Judge, judge

EXAMPLES = [name for name in dir(llama_grammar) if name.endswith("_GBNF")]


@pytest.fixture(scope="module")
def texts(endless: Path) -> Iterator[Judge]:
    with judge(endless) as found:
        yield found


@pytest.mark.parametrize("name", EXAMPLES)
def test_grammars_that_others_use_are_fine(name: str) -> None:
    check_cost(parse(getattr(llama_grammar, name)))


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ('root ::= "a" | [b-d] .', "cx"),
        ('# hi\nroot ::= ( "a" # and\n | "b" )+ # end\n', "aba"),
        ('root ::= item{2} item{0,1} item{1,}\nitem ::= [^a]*? "a"\n', "bababa"),
        ('root ::= "\\x41\\u0042\\U00000043\\t\\r\\n\\\\\\"\\[\\]\\-"', 'ABC\t\r\n\\"[]-'),
        ('root ::=\n  a |\n  "b"\r\na ::= "x"', "x"),
        ("root ::= [a\\]-]+", "a]-"),
        ('root ::= "" "a"', "a"),
        ('root ::= x x\nx ::= "a"* ', "aa"),
        ('root ::= r\nr ::= s r | "a"\ns ::= [b]', "bba"),
        ('root ::= ("a"{2}){2}', "aaaa"),
        ('root ::= "a"{2}{2}', "aaaa"),
        ("root ::= <[300]> !<[5]>", ""),
    ],
)
def test_what_is_read_llama_cpp_can_read_too(texts: Judge, grammar: str, text: str) -> None:
    check_cost(parse(grammar))
    assert texts.allows(text, grammar) == bool(text)


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        ("", "there is no rule 'root'"),
        ('other ::= "a"', "there is no rule 'root'"),
        ("root ::= a b", "'root' refers to 'a', which is not defined"),
        ("root ::= (a)", "of a group refers to 'a', which is not defined"),
        ("root", "line 1: expected '::='"),
        ('root ::= "a"\n"b"', "line 2: expected the name of a rule"),
        ('root ::= "a', "line 1: expected a closed literal"),
        ('root ::= "\\q"', "line 1: expected a closed literal"),
        ("root ::= [a", "expected a closed character class"),
        ("root ::= <a", "expected a token"),
        ('root ::= ("a"', "expected ')'"),
        ('root ::= "a")', "expected the end of the line"),
        ("root ::= *", "there is nothing to repeat"),
        ('root ::= ""+', "there is nothing to repeat"),
        ('root ::= "a"{x}', "expected a number of repetitions"),
        ('root ::= "a"{3,2}', "is above the highest"),
        ('root ::= "a"{2001}', "at most 2000 repetitions"),
        ('root ::= root "a"', "the rule 'root' begins with itself"),
        ('root ::= a root "x"\na ::= b b\nb ::= "q"*', "the rule 'root' begins with itself"),
        ('root ::= ("" | root "a") "b"', "begins with itself"),
        ("root ::= " + "(" * 65 + '"a"' + ")" * 65, "groups are nested deeper"),
        ('root ::= "' + "x" * 200 + '"{2000}', "at most 200000 are possible"),
    ],
)
def test_what_is_no_usable_grammar_is_refused(grammar: str, problem: str) -> None:
    with pytest.raises(GBNFError) as caught:
        check_cost(parse(grammar))
    assert problem in str(caught.value)


def chain(body: str, length: int) -> str:
    rules = [f"a{i} ::= {body.replace('NEXT', f'a{i + 1}')}" for i in range(length)]
    return "\n".join(["root ::= a0", *rules, f'a{length} ::= "x"'])


@pytest.mark.parametrize(
    "grammar",
    [
        chain("NEXT | NEXT", 40),
        chain('NEXT "x" | NEXT "y"', 40),
        chain("NEXT? NEXT", 40),
        chain("NEXT", 3000),
        "root ::= " + " | ".join(f'"{number}"' for number in range(1100)),
        chain("(NEXT | empty){0,1000}", 5) + '\nempty ::= ""',
    ],
)
def test_what_llama_cpp_would_count_for_ever_is_refused_at_once(grammar: str) -> None:
    started_at = time.process_time()
    with pytest.raises(GBNFError, match=r"begin in too many ways|begins with itself"):
        check_cost(parse(grammar))
    assert time.process_time() - started_at < 2


_PARTS = st.sampled_from(
    ['"a"', '"b"', "[ab]", ".", '""', "root", "x", "y", "(x y)", "( | x)", '"a"{2}', '"b"{0,3}']
)
_ITEM = st.builds("".join, st.tuples(_PARTS, st.sampled_from(["", "", "*", "+", "?", "{0,2}"])))
_BODY = st.lists(st.lists(_ITEM, max_size=3).map(" ".join), min_size=1, max_size=3).map(" | ".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(root=_BODY, x=_BODY, y=_BODY)
def test_llama_cpp_takes_every_grammar_that_is_not_refused(
    texts: Judge, root: str, x: str, y: str
) -> None:
    grammar = f"root ::= {root}\nx ::= {x}\ny ::= {y}\n"
    try:
        check_cost(parse(grammar))
    except GBNFError:
        return
    follower = taken(grammar, texts)
    if follower is not None:
        go_through(follower, texts)
        follower.close()


def go_through(follower: Grammar, texts: Judge) -> None:
    for text in ("aab", "bba", "a"):
        for token in texts.vocab.tokenize(text, add=False, parse=False):
            if follower.allows(token):
                follower.accept(token)


def taken(grammar: str, texts: Judge) -> Grammar | None:
    """Return *grammar* as llama.cpp takes it.

    Of rules that end in themselves it refuses some that would do no harm.
    """
    try:
        return Grammar(grammar, "grammar", texts.vocab)
    except InvalidRequestError as error:
        if "left recursion" not in error.message:
            raise
        return None
