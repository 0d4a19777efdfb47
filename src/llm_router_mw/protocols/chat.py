"""How conversations become prompts, and generated text becomes answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from llm_router_mw.types import Delta


class PreparedPrompt(Struct, frozen=True, kw_only=True):
    """What a chat format makes of a conversation."""

    prompt: str
    stops: tuple[str, ...] = ()
    grammar: str = ""
    triggers: tuple[str, ...] = ()
    turn_start: int = 0
    """Characters before the last user's message: where the next conversation may differ."""


class ChatParser(Protocol):
    """Turns the generated text of one answer into deltas."""

    def feed(self, text: str) -> Sequence[Delta]: ...

    def finish(self) -> Sequence[Delta]: ...


@runtime_checkable
class ChatFormat(Protocol):
    """Templates conversations and parses answers; made once per instance, in the worker.

    Named by ``llm_router_register_chat_formats``; constructed with the template's source and the
    texts of the beginning- and end-of-sequence tokens.
    """

    def __init__(self, template: str, bos: str, eos: str) -> None: ...

    def prepare(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        choice: str = "auto",
    ) -> PreparedPrompt:
        """Return the prompt.

        Raises:
            InvalidRequestError: the template cannot take these messages.
        """
        ...

    def parser(self) -> ChatParser: ...
