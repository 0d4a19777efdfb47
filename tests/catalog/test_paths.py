"""One file has one path, so that its names can share an instance."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.catalog.paths import canonical, is_utf8


def test_a_relative_path_begins_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert canonical("m/../a.gguf") == str(tmp_path / "a.gguf")


def test_links_to_one_file_come_to_one_path(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.touch()
    link, directory = tmp_path / "b.gguf", tmp_path / "d"
    link.symlink_to(file)
    directory.symlink_to(tmp_path)
    assert {canonical(str(path)) for path in (file, link, directory / "b.gguf")} == {str(file)}


def test_a_part_keeps_its_name_because_its_siblings_are_found_by_it(tmp_path: Path) -> None:
    blob, directory = tmp_path / "blob", tmp_path / "d"
    blob.touch()
    part = tmp_path / "a-00001-of-00002.gguf"
    part.symlink_to(blob)
    directory.symlink_to(tmp_path)
    assert canonical(str(directory / part.name)) == str(part)


def test_a_broken_link_keeps_the_name_that_the_user_knows(tmp_path: Path) -> None:
    link = tmp_path / "a.gguf"
    link.symlink_to(tmp_path / "gone")
    assert canonical(str(link)) == str(link)


@pytest.mark.parametrize("path", ["/m/a\0b.gguf", "/m\0/a-00001-of-00002.gguf"])
def test_an_impossible_path_is_left_as_it_is(path: str) -> None:
    assert canonical(path).startswith("/m")


def test_names_that_are_not_utf8_are_told_apart() -> None:
    assert is_utf8("Größe")
    assert not is_utf8("\udcff")
