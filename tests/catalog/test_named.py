"""Models that the options name one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.catalog import Catalog, NamedSource
from llm_router_mw.config import ModelEntry, parse_config
from llm_router_mw.errors import ModelFileError
from llm_router_mw.testing.gguf import small_model
from llm_router_mw.types import LoadOptions, Model


def test_an_entry_becomes_a_model(tmp_path: Path) -> None:
    path = small_model().write(tmp_path / "a.gguf")
    options = LoadOptions(n_ctx=1024)
    entry = ModelEntry(id="a", path=str(path), aliases=("b",), tags=("t",), options=options)
    assert NamedSource([entry]).models() == [
        Model(id="a", path=str(path), source="config", aliases=("b",), tags=("t",), options=options)
    ]


def test_relative_paths_begin_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_model().write(tmp_path / "a.gguf")
    monkeypatch.chdir(tmp_path)
    (found,) = NamedSource([ModelEntry(id="a", path="a.gguf")]).models()
    assert found.path == str(path)


def test_names_for_one_file_with_equal_options_share_an_instance(tmp_path: Path) -> None:
    path = small_model().write(tmp_path / "a.gguf")
    (tmp_path / "link.gguf").symlink_to(path)
    config = parse_config(
        models={
            "a": path,
            "b": tmp_path / "link.gguf",
            "embedding": {"path": path, "pooling": "mean"},
        }
    )
    a, b, embedding = NamedSource(config.models).models()
    assert a.instance_key == b.instance_key
    assert a.instance_key != embedding.instance_key


def test_a_missing_file_is_warned_about_and_refused_when_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.gguf"
    catalog = Catalog([NamedSource([ModelEntry(id="a", path=str(path))])])
    assert caplog.messages == [f"model 'a': there is no file {path}; requests for it will fail"]
    with pytest.raises(ModelFileError, match=r"^a\.gguf cannot be read"):
        catalog.check_file(catalog.resolve("a"))
    small_model().write(path)
    assert catalog.check_file(catalog.resolve("a"))
