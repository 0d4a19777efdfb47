"""Which models a directory holds: llama-server's rules, and what it gets wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_router_mw.catalog import Catalog, DirectorySource
from llm_router_mw.errors import ConfigError, ModelFileError
from llm_router_mw.testing.gguf import small_model
from llm_router_mw.types import LoadOptions

OPTIONS = LoadOptions(n_ctx=2048)


def fill(directory: Path, *names: str) -> None:
    """Write a small model under each of *names*."""
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small_model().write(path)


def found(directory: Path) -> dict[str, str]:
    """Return the models of *directory*: id → path within it."""
    models = DirectorySource(str(directory), OPTIONS).models()
    return {model.id: os.path.relpath(model.path, directory) for model in models}


def test_a_file_is_a_model_named_without_its_suffix(tmp_path: Path) -> None:
    fill(tmp_path, "b 2.gguf", "a.Q4_K_M.gguf", "notes.txt")
    assert found(tmp_path) == {"a.Q4_K_M": "a.Q4_K_M.gguf", "b 2": "b 2.gguf"}


def test_models_have_the_default_options_and_say_where_they_come_from(tmp_path: Path) -> None:
    fill(tmp_path, "a.gguf")
    (model,) = DirectorySource(str(tmp_path), OPTIONS).models()
    assert model.options == OPTIONS
    assert model.source == "models_dir"
    assert model.path == str(tmp_path / "a.gguf")


def test_a_relative_directory_begins_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "models/a.gguf")
    monkeypatch.chdir(tmp_path)
    (model,) = DirectorySource("models", OPTIONS).models()
    assert model.path == str(tmp_path / "models" / "a.gguf")


def test_a_directory_in_it_is_a_model_of_its_first_file(tmp_path: Path) -> None:
    fill(tmp_path, "qwen/b.gguf", "qwen/a.gguf", "qwen/deeper/c.gguf", "gemma/it.gguf")
    (tmp_path / "qwen" / "0.gguf").mkdir()
    assert found(tmp_path) == {"gemma": "gemma/it.gguf", "qwen": "qwen/a.gguf"}


def test_a_directory_in_it_prefers_a_model_in_parts(tmp_path: Path) -> None:
    fill(tmp_path, "q/a.gguf", "q/q-00002-of-00002.gguf", "q/q-00001-of-00002.gguf")
    assert found(tmp_path) == {"q": "q/q-00001-of-00002.gguf"}


def test_a_directory_without_models_is_none(tmp_path: Path) -> None:
    fill(tmp_path, "docs/readme.txt", "projectors/mmproj.gguf", ".cache/a.gguf")
    assert found(tmp_path) == {}


def test_parts_are_one_model(tmp_path: Path) -> None:
    fill(tmp_path, *(f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)))
    assert found(tmp_path) == {"big": "big-00001-of-00003.gguf"}


@pytest.mark.parametrize(
    "companion",
    ["mmproj-a.gguf", "a-MMPROJ.gguf", "mtp-a.gguf", "dspark-a.gguf", "dflash-a.gguf", "eagle3-a"],
)
def test_companions_and_hidden_files_are_left_out(tmp_path: Path, companion: str) -> None:
    fill(tmp_path, "z.gguf", f"{companion}.gguf", ".a.gguf")
    fill(tmp_path, "d/z.gguf", f"d/{companion}.gguf", "d/.a.gguf")
    assert found(tmp_path) == {"d": "d/z.gguf", "z": "z.gguf"}


def test_a_directory_may_be_named_like_a_companion(tmp_path: Path) -> None:
    fill(tmp_path, "mtp-models/a.gguf")
    assert found(tmp_path) == {"mtp-models": "mtp-models/a.gguf"}


def test_of_two_models_of_one_name_the_first_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, "a/x.gguf", "a.gguf")
    assert found(tmp_path) == {"a": "a/x.gguf"}
    assert caplog.messages == [
        f"models_dir: {tmp_path}/a.gguf is left out, {tmp_path}/a/x.gguf has the same name"
    ]


def test_the_parts_of_one_model_are_no_second_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, "big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    assert len(found(tmp_path)) == 1
    assert caplog.messages == []


def link_in_place_of_a_file(directory: Path) -> None:
    (directory / "bad.gguf").symlink_to(directory / "gone")


def link_in_place_of_a_directory(directory: Path) -> None:
    (directory / "bad").symlink_to(directory / "gone")


def link_in_a_directory(directory: Path) -> None:
    (directory / "bad").mkdir()
    (directory / "bad" / "x.gguf").symlink_to(directory / "gone")


def link_in_a_circle(directory: Path) -> None:
    (directory / "bad.gguf").symlink_to(directory / "bad.gguf")


def first_part_missing(directory: Path) -> None:
    fill(directory, "bad-00002-of-00002.gguf")


@pytest.mark.parametrize(
    "spoil",
    [
        link_in_place_of_a_file,
        link_in_place_of_a_directory,
        link_in_a_directory,
        link_in_a_circle,
        first_part_missing,
    ],
)
def test_what_cannot_be_used_is_listed_and_breaks_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    fill(tmp_path, "good.gguf")
    spoil(tmp_path)
    catalog = Catalog([DirectorySource(str(tmp_path), OPTIONS)])
    assert [model.id for model in catalog.models()] == ["bad", "good"]
    assert len(caplog.messages) == 1
    assert "does not exist; requests for 'bad' will fail" in caplog.text
    assert catalog.check_file(catalog.resolve("good"))
    with pytest.raises(ModelFileError):
        catalog.check_file(catalog.resolve("bad"))


def test_a_directory_that_cannot_be_read_breaks_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "good.gguf", "bad/a.gguf")
    listdir = os.listdir

    # Taking permissions away would not do: the tests may run as root.
    def guarded(path: str) -> list[str]:
        if path.endswith("bad"):
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", guarded)
    catalog = Catalog([DirectorySource(str(tmp_path), OPTIONS)])
    assert caplog.messages == [f"models_dir: {tmp_path}/bad cannot be read: Permission denied"]
    assert catalog.check_file(catalog.resolve("good"))
    with pytest.raises(ModelFileError, match=r"^bad is a directory"):
        catalog.check_file(catalog.resolve("bad"))


@pytest.mark.parametrize("name", [os.fsdecode(b"b\xff.gguf"), " .gguf"])
def test_what_no_request_can_name_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fill(tmp_path, "good.gguf", name)
    assert found(tmp_path) == {"good": "good.gguf"}
    assert "is left out, no request can name it; rename it" in caplog.text


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("null\0byte", "embedded null byte"),
    ],
)
def test_the_directory_itself_must_be_readable(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=rf"models_dir '.*' cannot be read: .*{reason}; name an"):
        DirectorySource(str(tmp_path / name), OPTIONS).models()


def test_new_models_are_found_the_next_time(tmp_path: Path) -> None:
    source = DirectorySource(str(tmp_path), OPTIONS)
    assert source.models() == []
    fill(tmp_path, "a.gguf")
    assert [model.id for model in source.models()] == ["a"]
