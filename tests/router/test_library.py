"""Where the files of models are: here, elsewhere, or their headers alone."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from llm_router_mw.config import parse_config
from llm_router_mw.errors import ConfigError, DownloadError
from llm_router_mw.gguf import read_headers
from llm_router_mw.hub import Hub
from llm_router_mw.router.library import Library, open_library
from llm_router_mw.testing.gguf import small_model
from llm_router_mw.types import Model
from tests.support.fake_hub import FakeHub

pytestmark = pytest.mark.asyncio

REPO = "owner/tiny-GGUF"
PATH = f"hf://{REPO}"
MODEL = Model(id="tiny", path=PATH, source="hub")
CONTENT = small_model().data() + bytes(3 * 1024**2)


class Time:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def library(hub: FakeHub, tmp_path: Path, clock: Time) -> Library:
    hub.add(REPO, "tiny-Q8_0.gguf", CONTENT)
    return Library(Hub(os.environ), tmp_path / "headers", clock)


def nothing(done: int, total: int) -> None:
    """Ignore how far a download is."""


async def test_ordinary_paths_stand_for_themselves(hub: FakeHub, library: Library) -> None:
    path = "/models/a.gguf"
    assert await library.find(path)
    assert not library.is_missing(path)
    assert library.file(path) == path
    await library.look_into(path)
    await library.download(path, nothing)
    assert hub.asked == []


async def test_what_has_yet_to_come_is_judged_by_its_headers(
    hub: FakeHub, library: Library
) -> None:
    assert not await library.find(PATH)
    assert library.is_missing(PATH)
    await library.look_into(PATH)
    assert library.is_missing(PATH)
    found = library.located(MODEL)
    assert found.id == "tiny"
    assert read_headers(found.path)[0].file_bytes == len(CONTENT)
    await library.look_into(PATH)
    assert hub.count("cdn") == 1


async def test_what_has_come_is_taken_from_then_on(library: Library) -> None:
    await library.look_into(PATH)
    await library.download(PATH, nothing)
    assert not library.is_missing(PATH)
    assert await anyio.Path(library.file(PATH)).read_bytes() == CONTENT


async def test_a_file_that_is_gone_is_missing_again(library: Library) -> None:
    await library.download(PATH, nothing)
    await anyio.Path(library.file(PATH)).unlink()
    assert not await library.find(PATH)
    assert library.is_missing(PATH)


async def test_all_who_look_at_once_cause_one_look(hub: FakeHub, library: Library) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(library.look_into, PATH)
    assert hub.count("cdn") == 1


async def test_trouble_is_remembered_for_a_while(
    hub: FakeHub, library: Library, clock: Time
) -> None:
    hub.answers["refs"] = b"{}"
    for clock.now in (0.0, 9.0):
        with pytest.raises(DownloadError, match="does not say"):
            await library.look_into(PATH)
    assert hub.count("refs") == 1
    hub.answers.clear()
    clock.now = 10.0
    await library.look_into(PATH)
    assert hub.count("refs") == 2


async def test_headers_are_removed_in_the_end(hub: FakeHub, clock: Time) -> None:
    hub.add(REPO, "tiny-Q8_0.gguf", CONTENT)
    async with AsyncExitStack() as stack:
        library = await open_library(stack, parse_config(), [MODEL], clock)
        await library.look_into(PATH)
        path = anyio.Path(library.file(PATH))
        assert await path.exists()
    assert not await path.exists()


async def test_what_is_here_needs_no_library_to_fetch_it(
    hub: FakeHub, library: Library, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    await library.download(PATH, nothing)
    monkeypatch.setitem(sys.modules, "llm_router_mw.hub.client", None)
    other = Model(id="other", path="hf://owner/other", source="hub")
    async with AsyncExitStack() as stack:
        await open_library(stack, parse_config(), [MODEL], clock)
        with pytest.raises(ConfigError, match="pip install"):
            await open_library(stack, parse_config(), [MODEL, other], clock)
        await open_library(stack, parse_config(offline=True), [MODEL, other], clock)
