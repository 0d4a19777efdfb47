"""The files of sleeping models stay in the page cache, where there is memory to spare."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import anyio
import pytest

from llm_router_mw.router import warmth
from llm_router_mw.router.warmth import Warmth
from tests.support.tiny_models import write_tiny_llama
from tests.support.waiting import until

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="there is no such advice"),
]

MIB = 2**20


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets that the system was asked to read."""
    found: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, offset, size, advice: found.append(offset))
    monkeypatch.setattr(warmth, "_CHUNK_BYTES", 100_000)
    monkeypatch.setattr(warmth, "_PAUSE_SECONDS", 0.0)
    return found


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_tiny_llama(tmp_path / "a.gguf"))


async def test_the_whole_file_is_read_in_portions(advised: list[int], model: str) -> None:
    size = os.path.getsize(model)  # noqa: ASYNC240
    await Warmth(lambda: [model], lambda: 2**40).look()
    assert advised == list(range(0, size, 100_000))
    assert len(advised) > 2


async def test_nothing_is_read_that_there_is_no_room_for(advised: list[int], model: str) -> None:
    await Warmth(lambda: [model], lambda: 150_000).look()
    assert advised == []


async def test_it_stops_when_memory_gets_short(advised: list[int], model: str) -> None:
    await Warmth(lambda: [model], lambda: 2**40 if len(advised) < 2 else 0).look()
    assert len(advised) == 2


async def test_it_stops_when_the_model_wakes(advised: list[int], model: str) -> None:
    await Warmth(lambda: [model] if not advised else [], lambda: 2**40).look()
    assert len(advised) == 1


async def test_a_file_that_is_gone_is_no_trouble(advised: list[int], model: str) -> None:
    await Warmth(lambda: ["/missing.gguf", model], lambda: 2**40).look()
    assert advised


async def test_it_looks_again_and_again(
    advised: list[int], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warmth, "_EVERY_SECONDS", 0.001)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Warmth(lambda: [model], lambda: 2**40).run)
        await until(lambda: advised.count(0) > 2)
        tasks.cancel_scope.cancel()


async def test_systems_without_that_advice_say_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.delattr(os, "posix_fadvise")
    await Warmth(list, lambda: 0).run()
    assert "does nothing" in caplog.text
