"""The processes of one user meet in a directory that is theirs alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_router_mw import runtime_directory as module
from llm_router_mw.runtime_directory import (
    can_lock,
    is_held,
    make_private,
    put_locked,
    runtime_directory,
    try_lock,
)


def test_it_is_the_users_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == tmp_path / "llm-router-mw"


def test_without_one_it_is_where_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(os, "getuid", lambda: 999_999)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert runtime_directory() == tmp_path / "llm-router-mw-999999"


def test_a_private_directory_is_for_one_user(tmp_path: Path) -> None:
    for _ in range(2):
        make_private(tmp_path / "meet")
    assert (tmp_path / "meet").stat().st_mode & 0o777 == 0o700


def open_to_others(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o750)


def link(directory: Path) -> None:
    (directory.parent / "real").mkdir(mode=0o700)
    directory.symlink_to(directory.parent / "real")


@pytest.mark.parametrize("spoil", [open_to_others, link, Path.touch])
def test_one_that_others_may_use_is_refused(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "meet")
    with pytest.raises(PermissionError, match="not a directory that only this user may use"):
        make_private(tmp_path / "meet")


def test_somebody_elses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_private(tmp_path / "meet")
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(PermissionError, match="only this user"):
        make_private(tmp_path / "meet")


def test_a_file_is_locked_by_one_who_has_it_open(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        assert can_lock()
        assert try_lock(first)
        assert not try_lock(second)
    finally:
        os.close(first)
    assert try_lock(second)
    os.close(second)


def test_where_files_cannot_be_locked_nobody_is_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "fcntl", None)
    make_private(tmp_path)
    assert not can_lock()
    assert try_lock(-1)


def test_a_file_that_is_held_is_seen_until_its_holder_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "here.router"
    descriptor = put_locked(file, b"words")
    assert is_held(file)
    assert file.read_bytes() == b"words"
    os.close(descriptor)
    assert not is_held(file)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        is_held(file)
