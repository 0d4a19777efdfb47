"""The chat format of models that bring a Jinja template: render it, and take the text as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llm_router_mw.errors import InvalidRequestError
from llm_router_mw.protocols import PreparedPrompt
from llm_router_mw.types import ContentDelta, Delta

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Used, as by llama.cpp, where a model brings no template."""


class ContentParser:
    """Takes all text for content."""

    def feed(self, text: str) -> Sequence[Delta]:
        """Return *text* as content."""
        return (ContentDelta(text),) if text else ()

    def finish(self) -> Sequence[Delta]:
        """Return nothing: nothing was held back."""
        return ()


class TemplateChatFormat:
    """Renders conversations with the model's own template, in a sandbox."""

    def __init__(self, template: str, bos: str, eos: str) -> None:
        """Compile *template*; an empty one stands for ChatML.

        Raises:
            InvalidRequestError: the template is not valid Jinja.
        """
        self._bos, self._eos = bos, eos
        try:
            self._template = _environment().from_string(template or CHATML_TEMPLATE)
        except TemplateError as error:
            raise InvalidRequestError(
                f"the model's chat template cannot be used: {error}; set the option chat_template"
            ) from error

    def prepare(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        choice: str = "auto",
    ) -> PreparedPrompt:
        """Return the prompt that asks for the assistant's next message.

        Raises:
            InvalidRequestError: the template cannot take these messages.
        """
        if not messages:
            raise InvalidRequestError("messages is empty; send at least one", param="messages")
        plain = [_with_plain_content(message) for message in messages]
        prompt = self._render(
            messages=plain,
            tools=list(tools) or None,
            tool_choice=choice,
        )
        return PreparedPrompt(prompt=prompt, turn_start=_turn_start(prompt, plain))

    def parser(self) -> ContentParser:
        """Return a parser for one answer."""
        return ContentParser()

    def _render(self, **values: Any) -> str:
        try:
            return self._template.render(
                values, bos_token=self._bos, eos_token=self._eos, add_generation_prompt=True
            )
        # A template is a program of the model's author: it may raise whatever Python can.
        except Exception as error:
            raise InvalidRequestError(
                f"the model's chat template cannot take these messages: {error}", param="messages"
            ) from error


def _turn_start(prompt: str, messages: Sequence[dict[str, Any]]) -> int:
    """Return where the last user's message begins in *prompt*; 0 if it cannot be found."""
    asked = [message["content"] for message in messages if message.get("role") == "user"]
    return max(0, prompt.rfind(asked[-1])) if asked and asked[-1] else 0


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _with_plain_content(message: dict[str, Any]) -> dict[str, Any]:
    """Return *message* with its content as one string, which every template understands."""
    content = message.get("content")
    if isinstance(content, str):
        return message
    if content is None:
        return {**message, "content": ""}
    parts = content if isinstance(content, (list, tuple)) else [content]
    found = [part.get("text") if isinstance(part, dict) else None for part in parts]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) != len(parts):
        raise InvalidRequestError(
            "a message's content must be a string or a list of text parts", param="messages"
        )
    return {**message, "content": "\n".join(texts)}


# Jinja's own tojson escapes HTML, which would end up in the prompt.
def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
