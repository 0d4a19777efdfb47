"""Waiting for a condition, with a bound instead of a guess."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from llm_router_mw.errors import LLMRouterError

SECONDS = 10.0


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Return once *condition* holds; raise TimeoutError when it does not within *seconds*."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # any condition: there is no event to wait for
            await anyio.sleep(0.001)


async def outcome(call: Callable[[], Awaitable[object]], into: list[object]) -> None:
    """Add to *into* what *call* returns, or the error of ours that it raises."""
    try:
        into.append(await call())
    except LLMRouterError as error:
        into.append(error)
