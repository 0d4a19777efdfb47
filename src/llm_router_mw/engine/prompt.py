"""From a task to what the engine works on: tokens, stop strings, a parser."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from llm_router_mw.engine.chat_template import ContentParser
from llm_router_mw.engine.slots import common_prefix
from llm_router_mw.engine.vocab import Vocab
from llm_router_mw.errors import (
    ContextExceededError,
    InvalidRequestError,
    LLMRouterError,
    NotSupportedError,
)
from llm_router_mw.protocols import ChatFormat, ChatParser
from llm_router_mw.types import ChatTask, CompletionTask

_BEFORE_THE_END = 4
"""Tokens: templates end with some that belong to the answer to come."""
_WORTH_A_MARK = 16
"""Fewer tokens are computed again sooner than they are saved."""


class Prompt(Struct, frozen=True):
    """A prompt that is ready to be decoded."""

    tokens: list[int]
    stops: tuple[str, ...]
    parser: ChatParser
    marks: tuple[int, ...] = ()
    """Numbers of tokens at which a later request may begin to differ."""


class PromptReader:
    """Reads the prompts of one instance."""

    def __init__(
        self,
        vocab: Vocab,
        chat_format: ChatFormat | LLMRouterError,
        n_ctx: int,
        *,
        marks: bool = False,
    ) -> None:
        """Read with *vocab*; where the chat format could not be made, its error takes its place.

        A model whose template is broken still completes prompts. Prompts must leave room for an
        answer in *n_ctx* tokens. With *marks* prompts tell where
        a later one may begin to differ, for models that can go back to prepared places only.
        """
        self._vocab = vocab
        self._chat_format = chat_format
        self._n_ctx = n_ctx
        self._with_marks = marks

    def read(self, task: ChatTask | CompletionTask) -> Prompt:
        """Return the prompt of *task*.

        Raises:
            InvalidRequestError: it cannot be made into tokens; ``param`` names the field.
            ContextExceededError: it is too long.
            NotSupportedError: the chat format asks for what the engine cannot do.
        """
        if isinstance(task, ChatTask):
            return self._read_chat(task)
        tokens = self._not_empty(self._fitting(task.prompt, "prompt"), "prompt")
        return Prompt(tokens, task.stop, ContentParser(), self._marks(tokens))

    def _read_chat(self, task: ChatTask) -> Prompt:
        if isinstance(self._chat_format, LLMRouterError):
            raise self._chat_format
        prepared = self._chat_format.prepare(task.messages)
        if prepared.grammar:
            raise NotSupportedError("the model's chat format needs grammars, which are not there")
        tokens = self._not_empty(self._read_template(prepared.prompt), "messages")
        stops = (*task.stop, *prepared.stops)
        turn = prepared.prompt[: prepared.turn_start]
        return Prompt(tokens, stops, self._chat_format.parser(), self._marks(tokens, turn))

    def _read_template(self, text: str) -> list[int]:
        # The tokenizer adds the beginning by itself; most templates write it too.
        if self._vocab.adds_bos and self._vocab.bos_text:
            text = text.removeprefix(self._vocab.bos_text)
        return self._fitting(text, "messages")

    def _fitting(self, given: str | Sequence[int], param: str) -> list[int]:
        n_ctx = self._n_ctx
        least = self._vocab.least_tokens(given, n_ctx - 1) if isinstance(given, str) else 0
        if least:
            raise _context_exceeded(least, n_ctx, f"at least {least}")
        tokens = read_tokens(self._vocab, given, param)
        if len(tokens) >= n_ctx:
            raise _context_exceeded(len(tokens), n_ctx, str(len(tokens)))
        return tokens

    def _marks(self, tokens: list[int], turn: str = "") -> tuple[int, ...]:
        """Return the end of the prompt, but for some tokens, and the beginning of its last turn."""
        if not self._with_marks:
            return ()
        marks = [len(tokens) - _BEFORE_THE_END]
        if turn:
            marks.append(common_prefix(tokens, self._read_template(turn), len(tokens)))
        return tuple(mark for mark in marks if mark >= _WORTH_A_MARK)

    def _not_empty(self, tokens: list[int], param: str) -> list[int]:
        if tokens:
            return tokens
        if self._vocab.bos is None:
            raise InvalidRequestError(f"{param} is empty; send some text", param=param)
        return [self._vocab.bos]


def read_tokens(vocab: Vocab, given: str | Sequence[int], param: str) -> list[int]:
    """Return the tokens of a text; tokens are only checked.

    Raises:
        InvalidRequestError: the text is no valid text, or a token is not in the vocabulary.
    """
    if isinstance(given, str):
        try:
            return vocab.tokenize(given)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{param}: {error.message}", param=param) from error
    for token in given:
        if not 0 <= token < vocab.size:
            raise InvalidRequestError(
                f"{param} holds the token {token}; this model's tokens are 0 to {vocab.size - 1}",
                param=param,
            )
    return list(given)


def _context_exceeded(n_prompt: int, n_ctx: int, words: str) -> ContextExceededError:
    return ContextExceededError(
        f"request ({words} tokens) exceeds the available context size ({n_ctx} tokens), try "
        "increasing it",
        n_prompt_tokens=n_prompt,
        n_ctx=n_ctx,
    )
