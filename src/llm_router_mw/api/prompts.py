"""Prompts and inputs that may come as text, as tokens, or as lists of either."""

from __future__ import annotations

from typing import cast

from llm_router_mw.errors import InvalidRequestError

Text = str | tuple[int, ...]
RawInput = str | list[str | int | list[int]] | None

MAX_INPUTS = 2048
_MAX_TOKEN = 2**31 - 1


def single_prompt(given: RawInput) -> Text:
    """Return the one prompt in *given*.

    Raises:
        InvalidRequestError: there is none, or there are several.
    """
    prompts = _texts("prompt", given)
    if len(prompts) != 1:
        raise InvalidRequestError(
            f"prompt holds {len(prompts)} prompts; one for each request is supported so far",
            param="prompt",
        )
    return prompts[0]


def inputs(given: RawInput) -> tuple[Text, ...]:
    """Return the texts to embed.

    Raises:
        InvalidRequestError: there is none, one is empty, or there are too many.
    """
    texts = _texts("input", given)
    if len(texts) > MAX_INPUTS:
        raise InvalidRequestError(
            f"input holds {len(texts)} texts; at most {MAX_INPUTS} are allowed", param="input"
        )
    for index, text in enumerate(texts):
        if not text:
            raise InvalidRequestError(
                f"input[{index}] is empty; each input needs a text", param="input"
            )
    return texts


def _texts(name: str, given: RawInput) -> tuple[Text, ...]:
    """Return *given* as a tuple of texts; a flat list of tokens is one text."""
    if given is None or given == []:
        raise InvalidRequestError(f"{name} is missing or empty", param=name)
    if isinstance(given, str):
        return (given,)
    kinds = {type(item) for item in given}
    if kinds == {int}:
        return (_tokens(name, cast("list[int]", given)),)
    if int in kinds:
        raise InvalidRequestError(
            f"{name} mixes single tokens with texts; send tokens as a list of their own", param=name
        )
    return tuple(
        item if isinstance(item, str) else _tokens(name, cast("list[int]", item)) for item in given
    )


def _tokens(name: str, tokens: list[int]) -> tuple[int, ...]:
    for token in tokens:
        if not 0 <= token <= _MAX_TOKEN:
            raise InvalidRequestError(f"{name} holds {token}, which is no token", param=name)
    return tuple(tokens)
