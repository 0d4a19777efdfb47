"""Files are read once, as long as they stay the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_router_mw.errors import InvalidGGUFError, ModelFileError
from llm_router_mw.gguf import read_headers
from llm_router_mw.memory import model_file
from llm_router_mw.memory.model_file import ModelFiles, Remembered
from llm_router_mw.types import LoadOptions, LoraAdapter, Model
from tests.support.model_headers import Tensors, write_sparse


def model(path: Path, options: LoadOptions | None = None) -> Model:
    return Model(id="m", path=str(path), source="test", options=options or LoadOptions())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files as they are read."""
    names: list[str] = []

    def counting(path: str) -> object:
        names.append(Path(path).name)
        return read_headers(path)

    monkeypatch.setattr(model_file, "read_headers", counting)
    return names


def test_a_file_is_read_once(tmp_path: Path, reads: list[str]) -> None:
    path = write_sparse(tmp_path / "a.gguf")
    files = ModelFiles()
    assert files.read(model(path)) is files.read(model(path, LoadOptions(n_ctx=1)))
    assert reads == ["a.gguf"]
    assert files.read(model(path)).size_bytes == path.stat().st_size


def test_and_again_when_it_changes(tmp_path: Path, reads: list[str]) -> None:
    path = write_sparse(tmp_path / "a.gguf")
    files = ModelFiles()
    assert files.read(model(path)).shape.n_layer == 4
    write_sparse(path, metadata={"block_count": 2})
    os.utime(path, ns=(1, 1))
    assert files.read(model(path)).shape.n_layer == 2
    assert len(reads) == 2


def test_adapters_belong_to_the_identity(tmp_path: Path, reads: list[str]) -> None:
    path, adapter = write_sparse(tmp_path / "a.gguf"), write_sparse(tmp_path / "lora.gguf")
    files = ModelFiles()
    files.read(model(path))
    files.read(model(path, LoadOptions(lora=(LoraAdapter(path=str(adapter)),))))
    assert len(reads) == 2


def test_all_parts_of_a_model_are_read(tmp_path: Path) -> None:
    parts = [tmp_path / f"a-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, part in enumerate(parts):
        tensors: Tensors = {f"blk.{number}.attn_norm.weight": ("f32", (8,))}
        write_sparse(part, tensors=tensors, general={"split.count": 2})
    found = ModelFiles().read(model(parts[0]))
    assert [header.tensors[0].name for header in found.headers] == [
        "blk.0.attn_norm.weight",
        "blk.1.attn_norm.weight",
    ]
    assert found.size_bytes == sum(part.stat().st_size for part in parts)


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(InvalidGGUFError):
        ModelFiles().read(model(path))
    with pytest.raises(ModelFileError):
        ModelFiles().read(model(tmp_path / "none.gguf"))


def test_the_oldest_is_forgotten_first() -> None:
    remembered: Remembered[str, int] = Remembered(2)
    assert remembered.get("a") is None
    for number, key in enumerate("ab"):
        assert remembered.put(key, number) == number
    assert remembered.get("a") == 0
    remembered.put("c", 2)
    assert [remembered.get(key) for key in "abc"] == [0, None, 2]
