"""The file of what loads were seen to take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_router_mw.memory import observations
from llm_router_mw.memory.observations import (
    FILE_NAME,
    Observation,
    ObservationStore,
    default_folder,
)
from llm_router_mw.types import BufferMemory, MeasuredMemory


def seen(private: int = 1, *, peak: int = 0, weights: int = 5, **used: int) -> Observation:
    buffer = BufferMemory(buffer_type="CPU", device="host", weights_bytes=weights)
    memory = MeasuredMemory(buffers=(buffer,), private_bytes=private, peak_bytes=peak)
    return Observation(memory=memory, used_bytes=used)


def test_what_was_put_is_there_for_the_next_router(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    ObservationStore(folder).put("a", seen(7, gpu=3))
    assert ObservationStore(folder).get("a") == seen(7, gpu=3)
    assert ObservationStore(folder).get("b") is None


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    ObservationStore(folder).put("a", seen())
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert [each.name for each in folder.iterdir()] == [FILE_NAME]


def test_the_most_that_was_seen_stays_and_the_breakdown_is_the_last(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path)
    store.put("a", seen(9, peak=2, weights=5, gpu=3, other=1))
    assert store.put("a", seen(4, peak=8, weights=6, gpu=7)) == seen(
        9, peak=8, weights=6, gpu=7, other=1
    )


def test_two_routers_keep_each_others_entries(tmp_path: Path) -> None:
    first, second = ObservationStore(tmp_path), ObservationStore(tmp_path)
    assert first.get("b") is None
    second.put("b", seen(2))
    first.put("a", seen(1))
    assert ObservationStore(tmp_path).get("a") == seen(1)
    assert first.get("b") == seen(2)


def test_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "_MAX_ENTRIES", 2)
    store = ObservationStore(tmp_path)
    for key in ("a", "b", "a", "c"):
        store.put(key, seen())
    assert [store.get(key) is None for key in ("a", "b", "c")] == [False, True, False]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1, "entries": {"a": 3}}'])
def test_a_damaged_file_is_ignored_with_a_warning_and_replaced(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    store = ObservationStore(tmp_path)
    assert store.get("a") is None
    assert "what was seen of earlier loads is lost" in caplog.text
    store.put("a", seen(3))
    assert ObservationStore(tmp_path).get("a") == seen(3)


def test_a_file_of_another_version_is_not_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b'{"version": 99, "entries": {}}')
    assert ObservationStore(tmp_path).get("a") is None


def test_without_a_place_to_write_it_is_remembered_until_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    store = ObservationStore(tmp_path / "file")
    store.put("a", seen(3))
    assert store.get("a") == seen(3)
    assert "cannot be kept for later" in caplog.text


def test_the_draft_of_one_that_died_is_no_obstacle(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path)
    store.put("a", seen(1))
    [file] = tmp_path.iterdir()
    draft = file.with_name(f".{FILE_NAME}.{os.getpid()}")
    draft.write_text("half")
    store.put("a", seen(2))
    assert ObservationStore(tmp_path).get("a") == seen(2)


def test_the_place_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert default_folder({}) == tmp_path / ".cache" / "llm-router-mw"
    assert default_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/llm-router-mw")
