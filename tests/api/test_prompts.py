from __future__ import annotations

import pytest

from llm_router_mw.api.prompts import RawInput, inputs, single_prompt
from llm_router_mw.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("given", "prompt"),
    [("text", "text"), ("", ""), (["text"], "text"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2))],
)
def test_a_prompt_is_text_or_tokens(given: RawInput, prompt: str | tuple[int, ...]) -> None:
    assert single_prompt(given) == prompt


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "missing or empty"),
        ([], "missing or empty"),
        (["a", "b"], "holds 2 prompts"),
        ([1, "a"], "mixes"),
        ([[1], 2], "mixes"),
        ([-1], "-1, which is no token"),
        ([[2**31]], "no token"),
    ],
)
def test_anything_else_is_no_prompt(given: RawInput, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        single_prompt(given)
    assert caught.value.param == "prompt"


def test_inputs_are_one_or_many_texts_or_token_lists() -> None:
    assert inputs("a") == ("a",)
    assert inputs([1, 2]) == ((1, 2),)
    assert inputs(["a", [1, 2], "b"]) == ("a", (1, 2), "b")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "missing or empty"),
        ("", r"input\[0\] is empty"),
        (["a", ""], r"input\[1\] is empty"),
        ([[]], r"input\[0\] is empty"),
        (["a"] * 2049, "at most 2048"),
    ],
)
def test_an_input_must_be_something_and_not_too_much(given: RawInput, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        inputs(given)
    assert caught.value.param == "input"
