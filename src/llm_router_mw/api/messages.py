"""Conversations, checked and brought into the plain form that chat templates expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from llm_router_mw.api.body import MAX_ITEMS
from llm_router_mw.errors import InvalidRequestError


class Part(Struct, frozen=True):
    """A piece of a message's content."""

    type: str
    text: str | None = None


class Function(Struct, frozen=True):
    """The function of an earlier tool call."""

    name: str
    arguments: str = ""


class ToolCall(Struct, frozen=True, kw_only=True):
    """An earlier tool call, as part of the history."""

    id: str | None = None
    type: str = "function"
    function: Function


class Message(Struct, frozen=True, kw_only=True):
    """One turn. Fields that are not listed here are not passed on."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Meta(max_length=MAX_ITEMS)] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_call_id: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=MAX_ITEMS)] | None = None


def conversation(messages: Sequence[Message]) -> tuple[dict[str, Any], ...]:
    """Return *messages* with plain string contents and without empty fields.

    Raises:
        InvalidRequestError: there is none, or one has no content that we can pass on.
    """
    if not messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages")
    return tuple(_plain(message, index) for index, message in enumerate(messages))


def _plain(message: Message, index: int) -> dict[str, Any]:
    fields = {
        name: value for name, value in msgspec.to_builtins(message).items() if value is not None
    }
    # Templates know no "developer"; it is OpenAI's newer name for the same thing.
    fields["role"] = "system" if message.role == "developer" else message.role
    fields["content"] = _text(message, f"messages[{index}].content")
    return fields


def _text(message: Message, param: str) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        if message.role != "assistant":
            raise InvalidRequestError(
                f"{param} is missing; a {message.role} message needs a text", param=param
            )
        return ""
    return "".join(_part_text(part, f"{param}[{index}]") for index, part in enumerate(content))


def _part_text(part: Part, param: str) -> str:
    if part.type != "text":
        raise InvalidRequestError(
            f"{param} is of type {part.type!r}, which is not supported yet; send text", param=param
        )
    if part.text is None:
        raise InvalidRequestError(f"{param}.text is missing", param=f"{param}.text")
    return part.text
