"""Conversations become prompts through the model's own template."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from llm_router_mw.engine.chat_template import TemplateChatFormat
from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.protocols import ChatFormat
from llm_router_mw.types import ContentDelta

HI = {"role": "user", "content": "hi"}


def render(template: str, *messages: dict[str, Any]) -> str:
    return TemplateChatFormat(template, "<s>", "</s>").prepare(messages or (HI,)).prompt


def test_it_is_a_chat_format() -> None:
    assert isinstance(TemplateChatFormat("", "", ""), ChatFormat)


def test_an_empty_template_stands_for_chatml() -> None:
    assert render("", {"role": "system", "content": "be brief"}, HI) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_template_knows_what_hugging_face_gives_it() -> None:
    template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ add_generation_prompt }}"
    assert render(template) == "<s>hi</s>True"


def test_no_tools_are_none() -> None:
    assert render("{{ tools is none }} {{ tool_choice }}") == "True auto"


def test_tools_are_passed_on() -> None:
    chat_format = TemplateChatFormat("{{ tools | tojson }}", "", "")
    assert chat_format.prepare([HI], [{"n": "<é>"}]).prompt == '[{"n": "<é>"}]'


def test_json_can_be_indented() -> None:
    assert render("{{ messages[0] | tojson(indent=1) }}").splitlines()[1] == ' "role": "user",'


def test_blocks_leave_no_blank_lines() -> None:
    assert render("a\n  {% if true %}\nb\n  {% endif %}\nc") == "a\nb\nc"


def test_loops_can_be_left() -> None:
    template = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}x{% endfor %}"
    assert render(template, HI, HI, HI) == "x"


def test_the_date_can_be_asked_for() -> None:
    assert render("{{ strftime_now('%Y') }}") == str(datetime.now().year)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([], ""),
    ],
)
def test_contents_of_every_kind_become_a_string(content: object, expected: str) -> None:
    assert render("{{ messages[0].content }}", {"role": "user", "content": content}) == expected


@pytest.mark.parametrize("content", [7, {"a": 1}, [{"type": "image_url"}], ["text"], [HI, 3]])
def test_contents_that_are_no_text_are_refused(content: object) -> None:
    with pytest.raises(InvalidRequestError, match="a string or a list of text parts") as caught:
        render("", {"role": "user", "content": content})
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ 'roles must alternate' + 1 }}",
        "{{ messages[0].role.no.such.thing }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_a_template_that_fails_refuses_the_messages(template: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot take these messages") as caught:
        render(template)
    assert caught.value.param == "messages"


def test_the_templates_own_words_are_passed_on() -> None:
    with pytest.raises(InvalidRequestError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


def test_no_messages_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="messages is empty"):
        TemplateChatFormat("", "", "").prepare([])


def test_a_template_that_is_no_jinja_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot be used.*chat_template"):
        TemplateChatFormat("{% for %}", "", "")


def test_the_answer_is_content_as_it_comes() -> None:
    parser = TemplateChatFormat("", "", "").parser()
    assert parser.feed("a") == (ContentDelta("a"),)
    assert parser.feed("") == ()
    assert parser.finish() == ()
