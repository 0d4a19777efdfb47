"""Answers that follow a grammar or a schema, from models that would say anything else."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_router_mw.errors import InvalidRequestError, LLMRouterError, error_from
from llm_router_mw.types import FinishDelta, Sampling
from tests.engine.conftest import Load
from tests.engine.driver import Driver, prompt
from tests.support.json_schema import is_valid
from tests.support.tiny_models import IM_START, write_tiny_llama

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "mail": {"type": "string", "pattern": r"^[a-z]{1,8}@[a-z]{1,8}\.(org|net)$"},
        "born": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"enum": ["a", 'b"', None, 1.5]}, "maxItems": 3},
        "score": {"type": "number", "minimum": -1, "maximum": 1},
        "boss": {"anyOf": [{"$ref": "#/$defs/ref"}, {"type": "null"}]},
    },
    "required": ["name", "age", "mail", "score"],
    "additionalProperties": False,
    "$defs": {"ref": {"type": "object", "properties": {"id": {"type": ["integer", "null"]}}}},
}
# Strings, lists and objects of a random model would go on for very long.
_SHORT = tuple((end, 4.0) for end in '"}],')


@pytest.fixture
def driver(load: Load, endless: Path) -> Driver:
    return load(endless, n_ctx=4096, n_parallel=4)


@pytest.fixture(scope="module")
def shared(endless: Path) -> Any:
    driver = Driver(endless, n_ctx=4096, n_parallel=1)
    yield driver
    driver.close()


def sampling(**settings: Any) -> Sampling:
    given = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1} | settings
    return Sampling(**given)


def answer(driver: Driver, **settings: Any) -> str:
    """Return an answer that has ended by itself."""
    request = driver.submit(prompt(sampling=sampling(**settings), max_tokens=1500))
    driver.run()
    assert driver.finish(request).reason == "stop"
    return driver.text(request)


def refusal(driver: Driver, **settings: Any) -> LLMRouterError:
    """Return the error with which a request with *settings* ends."""
    request = driver.submit(prompt(sampling=sampling(**settings), max_tokens=500))
    driver.run()
    return error_from(driver.failure(request))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0},
        {"top_k": 40, "top_p": 0.95, "min_p": 0.05},
        {"repeat_penalty": 1.3, "dry_multiplier": 0.8},
        {"mirostat": 2},
        {"n_probs": 2, "post_sampling_probs": True},
        {"logit_bias": (("1", 5.0), ("e", False))},
    ],
)
def test_an_answer_by_a_schema_is_valid(
    driver: Driver, seed: int, settings: dict[str, Any]
) -> None:
    value = json.loads(answer(driver, json_schema=PERSON, **{"seed": seed, **settings}))
    assert is_valid(value, PERSON)


def test_answers_differ_and_go_through_all_that_is_possible(driver: Driver) -> None:
    answers = [json.loads(answer(driver, json_schema=PERSON, seed=seed)) for seed in range(12)]
    assert len({one["name"] for one in answers}) > 8
    assert {bool(one.get("tags")) for one in answers} == {True, False}


def test_the_answer_alone_is_bound_not_its_neighbours(driver: Driver, load: Load) -> None:
    free = prompt(sampling=sampling(), max_tokens=40)
    alone = driver.answer(free)
    bound = driver.submit(prompt(sampling=sampling(json_schema=PERSON), max_tokens=400))
    other = driver.submit(free)
    driver.run()
    assert driver.text(other) == alone
    assert is_valid(json.loads(driver.text(bound)), PERSON)


_SCALARS = st.sampled_from(
    [
        {"type": "integer", "minimum": -5, "maximum": 250},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
        {"type": "string", "maxLength": 6},
        {"type": "string", "pattern": "^[^a-z]{1,4}$"},
        {"type": "string", "format": "date-time"},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["x", 1, None, {"k": ['\n"\\']}]},
    ]
)
_SCHEMAS = st.recursive(
    _SCALARS,
    lambda inner: (
        st.builds(lambda one: {"type": "array", "items": one, "maxItems": 2}, inner)
        | st.builds(lambda *all_of: {"anyOf": list(all_of)}, inner, inner)
        | st.builds(
            lambda named, required, others: {
                "type": "object",
                "properties": named,
                "required": [name for name in named if name in required],
                "additionalProperties": others,
            },
            st.dictionaries(st.sampled_from(["a", "b", 'q"', "é\n", ""]), inner, max_size=3),
            st.sets(st.sampled_from(["a", "b", 'q"', "é\n", ""])),
            st.booleans() | inner,
        )
    ),
    max_leaves=4,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=_SCHEMAS, seed=st.integers(0, 9))
def test_answers_by_any_schema_are_valid(shared: Driver, schema: Any, seed: int) -> None:
    text = answer(shared, json_schema=schema, seed=seed, logit_bias=_SHORT)
    assert is_valid(json.loads(text), schema), text


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("type", "properties", "required", "additionalProperties", "enum", "const"),
                    *("items", "prefixItems", "minItems", "minimum", "exclusiveMaximum", "$ref"),
                    *("anyOf", "allOf", "maxLength", "pattern", "format"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=st.dictionaries(st.sampled_from(["type", "items", "anyOf", "allOf"]), _JSON) | _JSON)
def test_whatever_is_sent_as_a_schema_is_taken_or_refused_by_name(
    shared: Driver, schema: Any
) -> None:
    text = json.dumps(schema)
    request = shared.submit(prompt(sampling=sampling(json_schema=text), max_tokens=1))
    shared.run()
    last = shared.deltas[request][-1]
    if not isinstance(last, FinishDelta):
        error = error_from(shared.failure(request))
        assert isinstance(error, InvalidRequestError)
        assert error.param == "json_schema"


def test_a_grammar_is_followed(driver: Driver) -> None:
    text = answer(driver, grammar='root ::= "<" [0-9]{3,5} ("€" | "\\n")* ">"', seed=3)
    assert re.fullmatch(r"<[0-9]{3,5}[€\n]*>", text)


def test_a_grammar_whose_end_is_banned_ends_the_answer_all_the_same(driver: Driver) -> None:
    assert answer(driver, grammar='root ::= "abc"', ignore_eos=True) == "abc"


def test_a_grammar_that_the_vocabulary_cannot_spell_ends_the_request(
    load: Load, folder: Path
) -> None:
    path = write_tiny_llama(folder / "no_bytes.gguf")
    driver = load(path)
    error = refusal(driver, grammar="root ::= <[3]> <[1]> [\\U00000001]", logit_bias=((3, 9.0),))
    assert isinstance(error, InvalidRequestError)
    assert error.param == "grammar"


def test_text_of_special_tokens_is_shown_as_the_grammar_saw_it(load: Load, endless: Path) -> None:
    driver = load(endless)
    biases = ((IM_START, 2000.0),)
    settings = sampling(json_schema={"const": "<|im_start|>"}, logit_bias=biases)
    request = driver.submit(prompt(sampling=settings, max_tokens=20))
    driver.run()
    assert driver.text(request).strip() == '"<|im_start|>"'
    assert driver.finish(request).usage.completion_tokens < 6


@pytest.mark.parametrize(
    ("settings", "param", "problem"),
    [
        ({"grammar": 'root ::= "a'}, "grammar", "line 1: expected a closed literal"),
        ({"grammar": "root ::= <zzz>"}, "grammar", "llama.cpp cannot use the grammar"),
        ({"grammar": 'root ::= "\0"'}, "grammar", "a character that is none"),
        ({"grammar": 'root ::= "\ud800"'}, "grammar", "a character that is none"),
        ({"grammar": "#" * 70_000}, "grammar", "longer than 65536"),
        ({"grammar": 'root ::= "a"', "json_schema": "{}"}, "grammar", "but not both"),
        ({"json_schema": "{"}, "json_schema", "Expecting property name"),
        ({"json_schema": "[" * 100_000}, "json_schema", "nested too deeply"),
        ({"json_schema": '{"const": NaN}'}, "json_schema", "NaN is no JSON value"),
        ({"json_schema": {"const": float("nan")}}, "json_schema", "cannot be written as JSON"),
        ({"json_schema": {"title": "x" * 200_000}}, "json_schema", "longer than 131072"),
        ({"json_schema": {"type": "tree"}}, "json_schema", "there is no type 'tree'"),
        (
            {"json_schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}},
            "json_schema",
            "begins with itself",
        ),
        (
            {"json_schema": {"$ref": "http://169.254.169.254/"}},
            "json_schema",
            "must lead to a place in the schema",
        ),
    ],
)
def test_what_is_no_grammar_or_schema_is_refused_at_once(
    driver: Driver, settings: dict[str, Any], param: str, problem: str
) -> None:
    started_at = time.process_time()
    error = refusal(driver, **settings)
    assert isinstance(error, InvalidRequestError)
    assert error.param == param
    assert problem in error.message
    assert time.process_time() - started_at < 2


def test_a_schema_that_is_not_to_be_written_as_json_is_refused(driver: Driver) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"items": deep}
    assert refusal(driver, json_schema=deep).param == "json_schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": 1_000_000},
        {"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 900_000},
        {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(300)}},
        {"type": "string", "pattern": "^(a|b|c[de]{1,9}){1,20}$"},
        {"type": "string", "pattern": "^.{0,1000}$"},
        {"enum": [f"value {i}" for i in range(1000)]},
    ],
)
def test_a_large_schema_begins_soon(driver: Driver, schema: Any) -> None:
    started_at = time.process_time()
    driver.answer(prompt(sampling=sampling(json_schema=schema), max_tokens=3))
    assert time.process_time() - started_at < 3


def test_a_grammar_that_doubles_its_readings_with_each_letter_is_given_up(
    load: Load, folder: Path
) -> None:
    path = write_tiny_llama(folder / "letters.gguf", says=("x", "y"))
    driver = load(path)
    error = refusal(
        driver,
        grammar='root ::= "a" root "b" | "a" root "c" | "d"',
        logit_bias=(("a", 100.0),),
    )
    assert isinstance(error, InvalidRequestError)
    assert "too ambiguous" in error.message
    assert error.param == "grammar"


def test_a_full_look_at_the_vocabulary_that_takes_too_long_is_given_up(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_router_mw.engine.grammar._MAX_RESTRICT_SECONDS", 0.0)
    assert "too ambiguous" in refusal(driver, grammar='root ::= "abc"').message
