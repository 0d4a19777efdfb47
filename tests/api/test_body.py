from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_router_mw.api.body import check_range, decode, refuse_unsupported
from llm_router_mw.errors import InvalidRequestError


class Request(msgspec.Struct):
    count: int | None = None
    items: list[str] = []


decoder = msgspec.json.Decoder(Request)


def test_a_good_body_is_decoded_and_unknown_fields_are_left_alone() -> None:
    assert decode(b'{"count": 3, "user": "me"}', decoder) == Request(count=3)


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"", "not valid JSON", None),
        (b"{count: 3}", "not valid JSON", None),
        (b'{"count": 3', "not valid JSON", None),
        (b'{"count": NaN}', "not valid JSON", None),
        (b'{"x": "\\ud800"}', "not valid JSON", None),
        (b'{"x": "caf\xe9"}', r"not valid UTF-8 \(byte 10\)", None),
        (b"[" * 100_000, "must be a JSON object", None),
        (b'{"x": ' + b"[" * 100_000, "nested too deeply", None),
        (b"[1]", "must be a JSON object", None),
        (b'"text"', "must be a JSON object", None),
        (b'{"count": "3"}', "count: expected `int", "count"),
        (b'{"count": 3.5}', "count: expected `int", "count"),
        (b'{"count": true}', "count: expected `int", "count"),
        (b'{"items": ["a", 1]}', "expected `str`, got `int`", "items[1]"),
    ],
)
def test_a_bad_body_is_a_400_that_says_what_is_wrong(
    body: bytes, says: str, param: str | None
) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        decode(body, decoder)
    assert caught.value.param == param
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("reasoning_effort", "high"),
    ],
)
def test_a_field_that_would_change_the_answer_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="not supported yet") as caught:
        refuse_unsupported(msgspec.json.encode({"model": "tiny", name: value}))
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", []),
        ("tools", None),
        ("tool_choice", "auto"),
        ("n", 1),
        ("user", "me"),
        ("metadata", {"a": 1}),
    ],
)
def test_a_field_that_asks_for_nothing_passes(name: str, value: Any) -> None:
    refuse_unsupported(msgspec.json.encode({name: value}))


def test_an_unsupported_field_may_hold_any_rubbish() -> None:
    with pytest.raises(InvalidRequestError, match="nested too deeply"):
        refuse_unsupported(b'{"tools": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_a_range_is_checked_by_name() -> None:
    check_range("top_p", 0.5, 0, 1)
    check_range("top_p", None, 0, 1)
    with pytest.raises(InvalidRequestError, match=r"top_p is 1\.5; .* between 0 and 1") as caught:
        check_range("top_p", 1.5, 0, 1)
    assert caught.value.param == "top_p"
