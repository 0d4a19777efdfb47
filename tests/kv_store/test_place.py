"""Where files and their index change together, also when something comes between."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from llm_router_mw.kv_store import folder as files
from llm_router_mw.kv_store.folder import Folder
from llm_router_mw.kv_store.offered import Offered
from llm_router_mw.kv_store.place import Place
from llm_router_mw.kv_store.speed import Speed
from llm_router_mw.kv_store.tier import UNLIMITED, Entry, Tier
from tests.support.fake_handle import MIB, sequence, write

pytestmark = pytest.mark.asyncio


def place(folder: Path, limit: int = UNLIMITED) -> Place:
    folder.mkdir(exist_ok=True)
    tier = Tier("disk", limit, lambda: UNLIMITED)
    return Place(tier, Folder(folder), Speed(100.0, 100.0), Offered(), lambda: 100.0, lambda: None)


def entry(folder: Path, name: str = "x.kv", *beginnings: int) -> Entry:
    return Entry(write(folder / name, sequence(0, *(beginnings or (1, 2)))), 50.0)


def break_off(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the task be cancelled where the function *name* is called."""

    def cancel(*_: object) -> None:
        raise anyio.get_cancelled_exc_class()

    monkeypatch.setattr(files, name, cancel)


async def test_a_reservation_that_is_cut_off_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = place(tmp_path, limit=MIB * 3 // 2)
    made.keep(entry(tmp_path))
    monkeypatch.setattr(made, "_make_room", cut_off)
    with pytest.raises(TimeoutError):
        await made.reserve("model A", MIB, used_at=60.0)
    assert made.tier.used_bytes == made.tier.oldest(1)[0].size_bytes


async def cut_off(*_: object) -> None:
    raise TimeoutError


async def test_a_copy_that_is_cut_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = entry(tmp_path)
    made = place(tmp_path / "disk")
    break_off(monkeypatch, "copy")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await made.copy(source)
    assert made.tier.used_bytes == 0


async def test_a_copy_of_what_is_gone_says_nothing_about_the_disk(tmp_path: Path) -> None:
    source = entry(tmp_path)
    files.remove([source.path])
    made = place(tmp_path / "disk")
    assert await made.copy(source) is None
    assert (made.is_full, made.tier.used_bytes) == (False, 0)


async def test_what_is_too_large_is_not_copied(tmp_path: Path) -> None:
    assert await place(tmp_path / "disk", limit=1000).copy(entry(tmp_path)) is None


async def test_what_has_come_while_the_directory_was_read_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = place(tmp_path)
    late = entry(tmp_path)

    def scan(known: list[str]) -> dict[str, object]:
        made.keep(late)
        return {late.path: (late.snapshot, 1.0)}

    monkeypatch.setattr(made.folder, "scan", scan)
    await made.scan()
    assert [(each.path, each.used_at) for each in made.tier] == [(late.path, 50.0)]
