"""Which texts the grammar of a schema lets through, and which schemas have one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llm_router_mw.engine.schema.convert import schema_to_gbnf
from llm_router_mw.engine.schema.error import SchemaError
from tests.engine.following import Judge
from tests.support.json_schema import is_valid

OBJECT = {"type": "object"}
NODE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
        }
    },
    "$ref": "#/$defs/node",
}
A_B = {"a": {"type": "integer"}, "b": {"type": "string"}}


def prop(**schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


ALLOWED: list[tuple[Any, list[Any]]] = [
    ({}, [{}, [], 1, -1.5, "text", None, True, {"a": [1, {"b": None}]}]),
    (True, [1]),
    (OBJECT, [{}, {"any": "thing"}]),
    ({"type": "object", "properties": A_B}, [{}, {"a": 1}, {"b": "x"}, {"a": 1, "b": "x"}]),
    ({"properties": A_B, "required": ["b"]}, [{"b": ""}, {"a": 1, "b": "x"}]),
    ({"properties": A_B, "required": ["a", "b"]}, [{"a": 1, "b": "x"}]),
    (
        {"properties": {f"p{i}": {"type": "null"} for i in range(4)}, "required": ["p2"]},
        [{f"p{i}": None for i in which} for which in ((2,), (0, 2), (1, 2, 3), (0, 1, 2, 3))],
    ),
    ({"properties": A_B, "additionalProperties": True}, [{"c": []}, {"a": 1, "c": 1, "d": 2}]),
    ({"properties": A_B, "additionalProperties": {"type": "null"}}, [{"ab": None, "": None}]),
    ({"properties": {'say "hi"\n': {}}, "additionalProperties": {}}, [{'say "': 1, "\t": 2}]),
    ({"type": "object", "required": ["x"]}, [{"x": 1}]),
    ({"type": "object", "additionalProperties": False}, [{}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"a": 1, "b": 2}]),
    ({"properties": {"a": False, "b": {}}}, [{"b": 1}]),
    ({"properties": {"\x01": {}, "a": {}}, "additionalProperties": {}}, [{"b": 1}]),
    ({"properties": {key: {} for key in '"\\\b\f\n\r\t'}, "additionalProperties": {}}, [{"b": 1}]),
    ({"type": "integer", "exclusiveMinimum": 3, "minimum": 4}, [4]),
    ({"type": "integer", "exclusiveMinimum": 3, "minimum": 2}, [4]),
    ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, [4]),
    ({"const": "\ud800"}, []),
    ({"type": "array"}, [[], [1, "a"]]),
    ({"items": {"type": "integer"}}, [[], [1], [1, 2, 3]]),
    ({"items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, [[1, 2], [1, 2, 3]]),
    ({"items": {"type": "integer"}, "maxItems": 1}, [[], [1]]),
    ({"type": "array", "maxItems": 0}, [[]]),
    ({"items": False}, [[]]),
    ({"prefixItems": [{"type": "integer"}, {"type": "string"}]}, [[1, "a"]]),
    ({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}}, [[1], [1, None, None]]),
    ({"items": [{"type": "integer"}], "additionalItems": {"type": "null"}}, [[1, None]]),
    ({"prefixItems": [{"type": "null"}], "minItems": 3}, [[None, 1, "a"]]),
    ({"prefixItems": [{"type": "null"}, {}], "maxItems": 1}, [[None]]),
    ({"type": "array", "uniqueItems": False}, [[1, 1]]),
    ({"type": "string"}, ["", "a", "ä€🦙", 'q"\\/\b\f\n\r\t']),
    ({"minLength": 2}, ["ab", "abcdef"]),
    ({"minLength": 1, "maxLength": 3}, ["a", "é", "\n\n\n"]),
    ({"maxLength": 250}, ["", "x" * 249, "x" * 250]),
    ({"minLength": 150, "maxLength": 400}, ["x" * 150, "x" * 273, "x" * 400]),
    ({"pattern": r"^\d{3}-[a-z]+$"}, ["123-ab"]),
    ({"format": "date"}, ["2024-02-29", "1999-12-31"]),
    ({"format": "time"}, ["23:59:59Z", "00:00:00.123+01:30"]),
    ({"format": "date-time"}, ["2024-02-29T12:00:00Z"]),
    ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"]),
    ({"type": "string", "format": "email"}, ["no mail at all"]),
    ({"type": "integer"}, [0, -7, 123456789012345]),
    ({"type": "integer", "multipleOf": 1}, [7]),
    ({"type": "number"}, [0, -1.25, 1e10, 2.5e-7]),
    ({"minimum": 3, "type": "integer"}, [3, 10, 999]),
    ({"minimum": 0, "maximum": 1}, [0, 0.25, 1]),
    ({"type": "boolean"}, [True, False]),
    ({"type": "null"}, [None]),
    ({"type": ["string", "null"], "maxLength": 2}, ["ab", None]),
    ({"type": ["integer", "array"], "minimum": 5, "maxItems": 0}, [5, []]),
    ({"const": 'é"\\\n'}, ['é"\\\n']),
    ({"enum": ['a"b', 1, None, [True]]}, ['a"b', 1, None, [True]]),
    ({"type": "string", "enum": ["a", 1]}, ["a"]),
    ({"enum": ["", "a", "ab", "abc", "b", 12, 1, "a"]}, ["", "a", "ab", "abc", "b", 1, 12]),
    ({"enum": ["x" * n for n in range(90)]}, ["", "x", "x" * 39, "x" * 40, "x" * 89]),
    ({"type": ["string", "null"], "enum": ["a", None, 1]}, ["a", None]),
    ({"const": 2, "enum": [1, 2]}, [2]),
    (NODE, [{"value": 1, "next": {"value": 2, "next": None}}]),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}}, [None]),
    ({"$ref": "#/anyOf/0", "anyOf": [{"type": "null"}]}, [None]),
    ({"properties": {"up": {"$ref": "#"}}}, [{"up": {"up": {}}}]),
    ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, [None, 3]),
    ({"oneOf": [{"type": "null"}, False, True]}, [None, 3, "x"]),
    ({"properties": A_B, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{"a": 1}]),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]}, [{"a": 1}]),
    (
        {"allOf": [{"$ref": "#/$defs/x"}, {"maximum": 9}], "$defs": {"x": {"type": "integer"}}},
        [9, -3],
    ),
    ({"$ref": "#/$defs/x", "maximum": 9, "$defs": {"x": {"type": "integer"}}}, [9]),
    ({"allOf": [{"allOf": [{"minimum": 3}]}, {"allOf": [{"maximum": 4}]}]}, [3, 4]),
    ({"allOf": [{"type": "number"}, {"type": ["integer", "string"]}]}, [3]),
    ({"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}, [2]),
    (
        {
            "allOf": [
                {"properties": {"a": {"type": "number"}}, "required": ["a"], "minItems": 1},
                {"properties": {"a": {"minimum": 2}}, "required": ["a"], "minItems": 2},
            ]
        },
        [{"a": 2}],
    ),
    ({"allOf": [{"items": {"minimum": 2}}, {"items": {"maximum": 3}}]}, [[2, 3]]),
    (prop(type="string", description="d", title="t", default=1, **{"x-order": 1}), [{"a": "b"}]),
]
FORBIDDEN: list[tuple[Any, list[Any]]] = [
    (OBJECT, [1, []]),
    ({"properties": A_B}, [{"a": "x"}]),
    ({"properties": A_B, "required": ["b"]}, [{}, {"a": 1}]),
    ({"properties": A_B, "additionalProperties": True}, [{"a": "x"}]),
    ({"properties": A_B, "additionalProperties": {"type": "null"}}, [{"a": None}, {"c": 1}]),
    ({"type": "object", "required": ["x"]}, [{}, {"y": 1}]),
    ({"type": "object", "additionalProperties": False}, [{"a": 1}]),
    ({"properties": {"a": False, "b": {}}}, [{"a": 1}]),
    ({"items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, [[], [1], [1] * 4, ["a", 1]]),
    ({"type": "array", "maxItems": 0}, [[1]]),
    ({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}}, [[None], [1, 1]]),
    ({"prefixItems": [{"type": "null"}], "minItems": 3}, [[None, 1]]),
    ({"minLength": 2}, ["a", ""]),
    ({"minLength": 1, "maxLength": 3}, ["", "abcd"]),
    ({"maxLength": 250}, ["x" * 251]),
    ({"minLength": 150, "maxLength": 400}, ["x" * 149, "x" * 401]),
    ({"format": "date"}, ["2024-1-1", "yesterday"]),
    ({"type": "integer"}, [1.5, "1"]),
    ({"minimum": 3, "type": "integer"}, [2, -3]),
    ({"minimum": 0, "maximum": 1}, [-1, 1.5, 2]),
    ({"type": ["string", "null"], "maxLength": 2}, ["abc", 1]),
    ({"type": ["string", "null"], "enum": ["a", None, 1]}, [1, "b"]),
    ({"enum": ["", "a", "abc", 12]}, ["ab", "c", "abcd", 1, 2]),
    (
        {"properties": {f"p{i}": {"type": "null"} for i in range(4)}, "required": ["p2"]},
        [
            {"p0": None},
            {"p2": 1},
            {},
        ],
    ),
    ({"properties": A_B, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{}]),
    ({"allOf": [{"type": "integer"}, {"maximum": 9}]}, [10, "a"]),
    (NODE, [{"value": 1}, {"value": 1, "next": {}}]),
]


@pytest.mark.parametrize(("schema", "values"), ALLOWED)
def test_what_is_valid_is_allowed(texts: Judge, schema: Any, values: list[Any]) -> None:
    grammar = schema_to_gbnf(schema)
    for value in values:
        assert schema is True or is_valid(value, schema), "the test is wrong"
        assert texts.allows(json.dumps(value, ensure_ascii=False), grammar), value


@pytest.mark.parametrize(("schema", "values"), FORBIDDEN)
def test_what_is_not_valid_is_not_allowed(texts: Judge, schema: Any, values: list[Any]) -> None:
    grammar = schema_to_gbnf(schema)
    for value in values:
        assert not is_valid(value, schema), "the test is wrong"
        assert not texts.allows(json.dumps(value, ensure_ascii=False), grammar), value


@pytest.mark.parametrize("text", ['{"a" :1}', '{\n  "a": 1\n}', '{ "a":1 }\n', '{\n\n\t"a"\n:1}'])
def test_blanks_are_allowed_between(texts: Judge, text: str) -> None:
    assert texts.allows(text, schema_to_gbnf(prop(type="integer")))


NO_JSON = [
    '"\x7f"',
    '"\\x"',
    '"\\ud800"',
    '"\\uD8ff"',
    "01",
    "1.",
    ".5",
    "+1",
    "1e999",
    "tru",
    "NaN",
]
NO_JSON_EITHER = ["{", '{"a"}', '{"a":1,}', "[1,]", "[,1]", '{"a":1}}', '"a\nb"', "\n\n\n1"]


@pytest.mark.parametrize("text", [*NO_JSON, *NO_JSON_EITHER, "1\n\n\n"])
def test_what_is_no_json_is_not_allowed(texts: Judge, text: str) -> None:
    assert not texts.allows(text, schema_to_gbnf({}))


def test_escapes_are_allowed(texts: Judge) -> None:
    text = r'"\" \\ \/ \b \f \n \r \t é ꯍ \ud7FF"'
    assert texts.allows(text, schema_to_gbnf({"type": "string"}))


def test_only_dates_that_exist_are_allowed(texts: Judge) -> None:
    grammar = schema_to_gbnf({"format": "date"})
    assert not any(
        texts.allows(f'"{date}"', grammar)
        for date in ("2024-13-01", "2024-00-01", "2024-04-31", "2024-02-30", "2024-01-32")
    )


def test_what_is_listed_first_is_there(texts: Judge) -> None:
    grammar = schema_to_gbnf({"prefixItems": [{"type": "integer"}, {}]})
    assert not texts.allows("[1]", grammar)


def test_other_properties_are_left_out_unless_asked_for(texts: Judge) -> None:
    assert not texts.allows('{"c": 1}', schema_to_gbnf({"properties": A_B}))


def test_a_known_name_cannot_be_smuggled_in_as_an_escape(texts: Judge) -> None:
    grammar = schema_to_gbnf({"properties": A_B, "additionalProperties": True})
    assert not texts.allows(r'{"\u0061": "no integer"}', grammar)
    assert texts.allows('{"\\n": 1}', grammar)


REFUSED: list[tuple[Any, str]] = [
    (False, "#: nothing is valid here"),
    ("text", "#: a schema must be an object or a boolean"),
    (prop(type="strin"), "#/properties/a: there is no type 'strin'"),
    (prop(type=7), "there is no type 7"),
    ({"type": []}, "there must be 1 to 500 choices"),
    ({"anyOf": [False]}, "there must be 1 to 500 choices"),
    ({"anyOf": {}}, "#/anyOf: must be a list"),
    ({"enum": []}, "#/enum: must be a list"),
    ({"enum": [1], "type": "string"}, "none of the values"),
    ({"not": {}}, "the keyword 'not' is not supported"),
    ({"patternProperties": {}}, "'patternProperties' is not supported"),
    ({"type": "array", "uniqueItems": True}, "'uniqueItems' is not supported"),
    ({"type": "object", "minProperties": 1}, "'minProperties' is not supported"),
    ({"type": "integer", "multipleOf": 2}, "'multipleOf' is not supported"),
    ({"type": "number", "multipleOf": 1}, "'multipleOf' is not supported"),
    ({"properties": []}, "properties must be an object"),
    ({"required": "a"}, "required must be a list of strings"),
    ({"required": ["b"], "additionalProperties": False}, "'b' is not among the properties"),
    ({"properties": {"a": False}, "required": ["a"]}, "a required property must not exist"),
    ({"prefixItems": {}}, "prefixItems must be a list"),
    ({"items": False, "minItems": 1}, "fewer than minItems"),
    ({"items": {}, "minItems": 3, "maxItems": 2}, "is above the highest"),
    ({"minLength": -1}, "minLength must not be negative"),
    ({"minLength": "1"}, "minLength must be an integer"),
    ({"minLength": True}, "minLength must be an integer"),
    ({"maxLength": 2.5}, "maxLength must be an integer"),
    ({"maxLength": 10**7}, "more than 1000000 repetitions"),
    ({"pattern": 3}, "pattern must be a string"),
    ({"pattern": "^a+$", "maxLength": 5}, "'pattern' also allows other lengths"),
    ({"minimum": "3"}, "minimum must be a number"),
    ({"minimum": 3, "maximum": 2}, "is above the upper one"),
    ({"exclusiveMinimum": 3, "maximum": 3}, "there is no number between"),
    ({"minimum": 10**20}, "more than 15 digits"),
    ({"$ref": "https://example.org/schema"}, "it must lead to a place in the schema itself"),
    ({"$ref": 3}, "it must lead to a place in the schema itself"),
    ({"$ref": "#/$defs/a"}, "leads to #/$defs/a, where there is nothing"),
    ({"$ref": "#/x", "x-y": 1, "maximum": 3}, "where there is nothing"),
    ({"$ref": "#/$defs/a", "maximum": 3, "$defs": {"a": True}}, "leads to a boolean"),
    ({"allOf": [{"$ref": "#/allOf/0"}]}, "leads in a circle"),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "values of 'pattern' cannot hold together"),
    (
        {"allOf": [{"additionalProperties": False}, {"properties": {"a": {}}}]},
        "are forbidden by additionalProperties",
    ),
    ({"$ref": "#/a", "type": 3, "a": {"type": {}}}, "the keyword 'a' is not supported"),
    ({"allOf": [{"properties": 3}, {"properties": {}}]}, "a value of the wrong kind"),
    ({"allOf": [{"type": "string"}, {"type": ["number"]}]}, "there must be 1 to 500 choices"),
    (
        {"properties": {f"p{i}": {} for i in range(301)}},
        "more than 300 properties in a row that are not required",
    ),
    ({"const": float("inf")}, "not JSON compliant"),
]


@pytest.mark.parametrize(("schema", "problem"), REFUSED)
def test_a_schema_that_cannot_be_promised_is_refused(schema: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        schema_to_gbnf(schema)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


BOMBS: list[Any] = [
    nested(70),
    {f"$defs{i}": {} for i in range(10)} | {"properties": {f"p{i}": {} for i in range(1001)}},
    {"enum": ["x" * 300_000]},
    {"anyOf": [{"const": index} for index in range(501)]},
    {
        "$defs": {
            f"d{i}": {
                "allOf": [
                    {"properties": {side: {"$ref": f"#/$defs/d{i + 1}"}, "x": {"maximum": i}}}
                    for side in "ab"
                ],
                "$ref": f"#/$defs/d{i + 1}",
            }
            for i in range(40)
        }
        | {"d40": {"type": "object"}},
        "$ref": "#/$defs/d0",
    },
    {
        "$defs": {
            f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}", "minimum": i}] * 2} for i in range(40)
        }
        | {"d40": {"type": "integer"}},
        "$ref": "#/$defs/d0",
    },
]


def test_a_count_of_null_is_as_if_it_were_not_there() -> None:
    schema = {"type": "array", "items": [{"type": "null"}]}
    assert schema_to_gbnf({**schema, "minItems": None}) == schema_to_gbnf(schema)


@pytest.mark.parametrize("schema", BOMBS)
@pytest.mark.timeout(5)
def test_a_schema_that_grows_out_of_hand_is_refused(schema: Any) -> None:
    with pytest.raises(SchemaError):
        schema_to_gbnf(schema)
