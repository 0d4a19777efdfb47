"""Conversations with engines that save them and go on from what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from llm_router_mw.engine.snapshots import Snapshots
from llm_router_mw.types import Snapshot
from tests.engine.driver import Driver, prompt
from tests.support.tiny_models import FIRST_PIECE

IDENTITY = "this model"
Tokens = tuple[int, ...]
NewsT = TypeVar("NewsT")


def tokens(start: int, length: int) -> Tokens:
    """Return a prompt of *length* tokens, different for each *start*."""
    return tuple(FIRST_PIECE + (start * 7 + step * step + step) % 100 for step in range(length))


def ask(driver: Driver, given: Tokens, **fields: object) -> int:
    """Ask something, alone, and return the request."""
    request = driver.submit(prompt(given, **{"max_tokens": 20, **fields}))
    driver.run()
    return request


def cached(driver: Driver, request: int) -> int:
    """Return how many tokens a request did not have to compute."""
    return driver.finish(request).usage.cached_tokens


def snapshots(driver: Driver) -> Snapshots:
    """Return what saves the conversations of *driver*, which is awake."""
    found = driver.engine.snapshots
    assert found is not None
    return found


def save_all(driver: Driver, folder: Path, name: str = "saved") -> list[Snapshot]:
    """Save what there is, longest idle first."""
    return [
        snapshots(driver).save(info.sequence, str(folder / f"{name}-{info.sequence}"))
        for info in snapshots(driver).infos()
    ]


def news(driver: Driver, kind: type[NewsT]) -> list[NewsT]:
    """Return what was told of that *kind*."""
    return [each for each in driver.news if isinstance(each, kind)]
