"""Chat formats that misbehave, or behave unlike the template one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_router_mw.engine.chat_template import ContentParser
from llm_router_mw.protocols import ChatParser, PreparedPrompt
from llm_router_mw.types import Delta, EmbeddingDelta

THIS = "tests.engine.formats"


class PlainFormat:
    """Puts the contents one after the other; the answer ends before a comma."""

    stops: tuple[str, ...] = (",",)
    grammar = ""

    def __init__(self, template: str, bos: str, eos: str) -> None:
        pass

    def prepare(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        choice: str = "auto",
    ) -> PreparedPrompt:
        prompt = "".join(message["content"] for message in messages)
        return PreparedPrompt(prompt=prompt, stops=self.stops, grammar=self.grammar)

    def parser(self) -> ChatParser:
        return ContentParser()


class GrammarFormat(PlainFormat):
    """Asks for a grammar."""

    grammar = "root ::= [a-z]"


class CrashingFormat(PlainFormat):
    """Has a bug in its code."""

    def prepare(self, *args: Any, **kwargs: Any) -> PreparedPrompt:
        raise ZeroDivisionError("a bug")


class _TalkativeParser(ContentParser):
    def finish(self) -> Sequence[Delta]:
        return [EmbeddingDelta(index, b"") for index in range(3)]


class TalkativeFormat(PlainFormat):
    """Has three deltas of a kind of its own to add when the answer is over."""

    def parser(self) -> ChatParser:
        return _TalkativeParser()
