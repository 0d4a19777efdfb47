"""Saved states are of use to the same files, loaded in a way that computes the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llm_router_mw.errors import ModelFileError
from llm_router_mw.memory.state_identity import _NO_MATTER, state_identity
from llm_router_mw.types import LoadOptions, LoraAdapter, Model, Placement
from tests.support.model_headers import write_sparse
from tests.support.snapshots import snapshot

HOST = Placement(n_ctx=4096)
GPU = Placement(devices=("GPU-1",), n_gpu_layers=-1)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return Model(id="m", path=str(path), source="test")


def identity(model: Model, placement: Placement | None = HOST, **options: Any) -> str:
    given = replace(model, options=replace(model.options, **options))
    return state_identity(given, placement, {})


@pytest.mark.parametrize(
    "options",
    [
        {"n_ctx": 8192},
        {"n_parallel": 8},
        {"n_batch": 64},
        {"n_threads": 2},
        {"chat_template": "{{ messages }}"},
        {"use_mmap": False},
        {"touch_context": True},
    ],
)
def test_what_leaves_a_state_as_it_is_does_not_count(model: Model, options: Any) -> None:
    assert identity(model, **options) == identity(model)


@pytest.mark.parametrize(
    "options",
    [
        {"type_k": "q8_0"},
        {"type_v": "q8_0"},
        {"swa_full": True},
        {"flash_attn": "off"},
        {"kv_unified": False},
        {"pooling": "mean"},
    ],
)
def test_what_changes_a_state_counts(model: Model, options: Any) -> None:
    assert identity(model, **options) != identity(model)


LONG = {"context_length": 131072, "rope.scaling.original_context_length": 4096}


@pytest.mark.parametrize(
    ("metadata", "differ"), [(LONG, True), ({"context_length": 4096}, True), ({}, False)], ids=str
)
def test_contexts_count_where_positions_are_stretched(
    tmp_path: Path, metadata: dict[str, int], differ: bool
) -> None:
    path = write_sparse(tmp_path / "model.gguf", "phi3", metadata, base={})
    model = Model(id="m", path=str(path), source="test")
    short, long = (identity(model, Placement(n_ctx=each)) for each in (4096, 4097))
    assert (short != long) == differ
    assert identity(model, Placement(n_ctx=1024)) == short
    assert identity(model, Placement(n_ctx=8192)) == long
    assert identity(model, None, n_ctx=4096) == short
    split: dict[str, Any] = {"kv_unified": False, "n_parallel": 2}
    apart, stretched = (identity(model, Placement(n_ctx=n), **split) for n in (8192, 16384))
    assert (apart != stretched) == differ


def test_the_number_of_separate_streams_counts(model: Model) -> None:
    split = [identity(model, kv_unified=False, n_parallel=number) for number in (2, 4)]
    assert split[0] != split[1]


def test_where_it_lies_counts_as_long_as_llama_chooses_the_attention(model: Model) -> None:
    assert identity(model, GPU) != identity(model, HOST)
    assert identity(model, GPU, flash_attn="on") == identity(model, HOST, flash_attn="on")
    assert identity(model, None) == identity(model, HOST)


def test_options_count_unless_they_are_known_not_to() -> None:
    assert set(LoadOptions.__struct_fields__) > _NO_MATTER


def test_a_changed_file_is_another_model(model: Model) -> None:
    before = identity(model)
    os.utime(model.path, (1.0, 1.0))
    assert identity(model) != before
    Path(model.path).unlink()
    with pytest.raises(ModelFileError):
        identity(model)


def test_adapters_count_by_their_files(model: Model, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(b"one")
    adapters = (LoraAdapter(path=str(adapter)),)
    before = identity(model, lora=adapters)
    assert before != identity(model)
    # How strong they are is part of the key of a sequence.
    assert identity(model, lora=(replace(adapters[0], scale=0.5),)) == before
    os.utime(adapter, (1.0, 1.0))
    assert identity(model, lora=adapters) != before


def test_another_build_of_llama_is_another_identity(model: Model, tmp_path: Path) -> None:
    builds = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "libllama.so").write_bytes(name.encode() * 3 + name[:1].encode())
        environ = {"LLAMA_CPP_LIB_PATH": str(folder)}
        builds.append(state_identity(model, HOST, environ))
        os.utime(folder / "libllama.so", (1.0, 1.0))
    assert builds[0] != builds[1]


def test_it_tells_of_which_file_it_is(model: Model, tmp_path: Path) -> None:
    (tmp_path / "link#1.gguf").symlink_to(model.path)
    for path in (model.path, str(tmp_path / "link#1.gguf")):
        found = snapshot(identity=identity(replace(model, path=path)))
        assert found.model_path == model.path
