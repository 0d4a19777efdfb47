"""A model in several files is one model, and only whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.errors import InvalidGGUFError, ModelFileError
from llm_router_mw.gguf import (
    ValueType,
    first_shard,
    read_header,
    read_headers,
    shard_stem,
    shards,
)
from llm_router_mw.testing.gguf import GGUFFile, Tensor, scalar, small_model


def write_parts(directory: Path, count: int = 3) -> list[Path]:
    split = {"split.count": scalar(ValueType.UINT16, count)}
    paths = [directory / f"big-{n + 1:05d}-of-{count:05d}.gguf" for n in range(count)]
    small_model({"split.count": split["split.count"]}).write(paths[0])
    for path in paths[1:]:
        GGUFFile(tensors=[Tensor("x")]).write(path)
    return paths


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("big-00001-of-00003.gguf", "big"),
        ("a-b-00002-of-00003.gguf", "a-b"),
        ("big.gguf", None),
        ("big-1-of-3.gguf", None),
        ("-00001-of-00003.gguf", None),
        ("big-00001-of-00003.gguf.part", None),
        ("big-٠٠٠٠١-of-00003.gguf", None),
    ],
)
def test_a_part_is_known_by_its_name(name: str, stem: str | None) -> None:
    assert shard_stem(name) == stem


def test_all_parts_are_found_from_the_first(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    assert shards(paths[0]) == paths
    assert first_shard(paths[2]) == paths[0]


def test_an_ordinary_file_is_its_only_part(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    assert shards(path) == [path]
    assert first_shard(path) == path


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    paths[1].unlink()
    with pytest.raises(ModelFileError, match="of 3 parts, and big-00002-of-00003"):
        shards(paths[0])


def test_a_name_that_claims_many_parts_is_refused_at_the_first_gap(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"of 99999 parts, and big-00001-of-99999\.gguf is"):
        shards(tmp_path / "big-00001-of-99999.gguf")


def test_a_part_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="one of no parts; give it its original name"):
        shards(tmp_path / "big-00001-of-00000.gguf")


@pytest.mark.parametrize("number", [0, 2])
def test_a_later_part_is_not_the_model(tmp_path: Path, number: int) -> None:
    sentence = r"^big-0000\d-of-00003\.gguf is not .* name big-00001-of-00003\.gguf instead"
    with pytest.raises(ModelFileError, match=sentence):
        shards(tmp_path / f"big-{number:05d}-of-00003.gguf")


def test_the_headers_of_all_parts_are_read(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    headers = read_headers(paths[0])
    assert headers == tuple(read_header(path) for path in paths)


def test_a_damaged_later_part_is_noticed(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    paths[2].write_bytes(b"GGUF")
    with pytest.raises(InvalidGGUFError, match="big-00003-of-00003"):
        read_headers(paths[0])


def test_a_renamed_part_cannot_find_its_siblings(tmp_path: Path) -> None:
    renamed = write_parts(tmp_path)[0].rename(tmp_path / "big.gguf")
    with pytest.raises(ModelFileError, match="has 3 parts, but its name says 1; give the parts"):
        read_headers(renamed)
