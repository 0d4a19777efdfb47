"""What a remembered figure is good for."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from llm_router_mw.errors import ModelFileError
from llm_router_mw.memory import identity
from llm_router_mw.memory.identity import llama_build, model_files
from llm_router_mw.types import LoadOptions, LoraAdapter, Model


def model(path: Path, *adapters: Path) -> Model:
    lora = tuple(LoraAdapter(path=str(adapter)) for adapter in adapters)
    return Model(id="m", path=str(path), source="test", options=LoadOptions(lora=lora))


def written(path: Path, text: str = "x") -> Path:
    path.write_text(text)
    return path


def test_all_parts_and_adapters_count(tmp_path: Path) -> None:
    first = written(tmp_path / "m-00001-of-00002.gguf")
    written(tmp_path / "m-00002-of-00002.gguf", "longer")
    adapter = written(tmp_path / "adapter.gguf", "ad")
    found = model_files(model(first, adapter))
    assert [(os.path.basename(path), size) for path, size, _ in found] == [
        ("m-00001-of-00002.gguf", 1),
        ("m-00002-of-00002.gguf", 6),
        ("adapter.gguf", 2),
    ]


def test_a_link_is_the_file_that_it_leads_to(tmp_path: Path) -> None:
    path = written(tmp_path / "blob")
    link = tmp_path / "link.gguf"
    link.symlink_to(path)
    assert model_files(model(link)) == model_files(model(path))


def test_a_changed_file_is_another_one(tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf")
    before = model_files(model(path))
    os.utime(path, ns=(1, 1))
    assert model_files(model(path)) != before


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"'gone\.gguf' cannot be used") as caught:
        model_files(model(tmp_path / "gone.gguf"))
    assert str(tmp_path) not in caught.value.message


def test_the_build_is_the_release_and_its_libraries() -> None:
    build = llama_build({})
    assert build.split()[0][0].isdigit()
    assert "libllama" in build
    assert llama_build({}) == build


def test_libraries_that_lie_elsewhere_are_another_build(tmp_path: Path) -> None:
    written(tmp_path / "libggml.so")
    assert "libggml.so:1:" in llama_build({"LLAMA_CPP_LIB_PATH": str(tmp_path)})
    assert llama_build({"LLAMA_CPP_LIB_PATH": str(tmp_path / "gone")}) == ""


def test_libraries_that_came_without_a_package_have_no_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(identity, "version", missing)
    assert llama_build({"LLAMA_CPP_LIB_PATH": str(tmp_path)}) == "unknown"
