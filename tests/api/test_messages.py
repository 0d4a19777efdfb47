from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_router_mw.api.messages import Message, conversation
from llm_router_mw.errors import InvalidRequestError


def plain(*messages: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return conversation(msgspec.convert(list(messages), list[Message]))


def test_plain_messages_stay_as_they_are() -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    assert plain(*messages) == messages


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert plain({"role": "user", "content": parts}) == ({"role": "user", "content": "ab"},)


def test_a_developer_is_the_system_for_a_template() -> None:
    assert plain({"role": "developer", "content": "x"})[0]["role"] == "system"


def test_an_assistant_may_have_said_nothing() -> None:
    assert plain({"role": "assistant", "content": None})[0]["content"] == ""
    assert plain({"role": "assistant"})[0]["content"] == ""


def test_earlier_tool_calls_are_passed_on_and_unknown_fields_are_not() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = plain(
        {"role": "assistant", "tool_calls": [call], "refusal": None, "huge": 10**30},
        {"role": "tool", "content": "4", "tool_call_id": "1", "name": "f"},
    )
    assert history == (
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "4", "tool_call_id": "1", "name": "f"},
    )


def test_there_must_be_a_message() -> None:
    with pytest.raises(InvalidRequestError, match="at least one message") as caught:
        plain()
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("message", "says", "param"),
    [
        ({"role": "user", "content": None}, "needs a text", "messages[0].content"),
        ({"role": "tool"}, "needs a text", "messages[0].content"),
        (
            {"role": "user", "content": [{"type": "image_url"}]},
            "'image_url', which is not supported yet",
            "messages[0].content[0]",
        ),
        (
            {"role": "user", "content": [{"type": "text"}]},
            "text is missing",
            "messages[0].content[0].text",
        ),
    ],
)
def test_a_content_that_cannot_be_passed_on_is_refused(
    message: dict[str, Any], says: str, param: str
) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        plain(message)
    assert caught.value.param == param
