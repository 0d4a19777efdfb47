"""One request: what it knows of its own tokens."""

from __future__ import annotations

from typing import Any, cast

from llm_router_mw.engine.blocks import Beginning
from llm_router_mw.engine.generation import Generation
from llm_router_mw.engine.prompt import Prompt
from tests.engine.driver import prompt


def generation(tokens: list[int]) -> Generation:
    nothing = cast("Any", None)
    return Generation(prompt(tuple(tokens)), Prompt(tokens, (), nothing), nothing)


def test_its_beginning_is_looked_for_as_it_is_now() -> None:
    tokens = list(range(100))
    request = generation(tokens)
    assert request.beginning is request.beginning
    request.forget(10, 30)
    assert tokens == [*range(10), *range(40, 100)]
    tokens += range(500, 530)
    # As long as before, but not the same.
    expected = Beginning(tokens, request.cache_key)
    assert request.beginning.common(expected.blocks, b"".join(map(four, tokens))) == 100


def four(token: int) -> bytes:
    return token.to_bytes(4, "little")
