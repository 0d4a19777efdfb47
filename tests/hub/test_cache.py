"""The hub's cache, as other tools leave it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_router_mw.hub.cache import HubCache, cache_directory
from llm_router_mw.hub.files import HubFile, Plan
from llm_router_mw.hub_reference import parse_reference

MODEL = parse_reference("o/r")
NAME = "m-Q4_K_M.gguf"
OLD, NEW, OTHER = "a" * 40, "b" * 40, "c" * 40


def put(root: Path, commit: str, name: str = NAME, ref: str | None = None) -> Path:
    """Put a file into a snapshot of a cache."""
    file = root / "models--o--r" / "snapshots" / commit / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    if ref is not None:
        branch = root / "models--o--r" / "refs" / ref
        branch.parent.mkdir(parents=True, exist_ok=True)
        branch.write_text(f"{commit}\n")
    return file


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"LLAMA_CACHE": "/l", "HF_HUB_CACHE": "/h"}, "/l"),
        ({"HF_HUB_CACHE": "/h", "HUGGINGFACE_HUB_CACHE": "/g"}, "/h"),
        ({"HUGGINGFACE_HUB_CACHE": "/g", "HF_HOME": "/f"}, "/g"),
        ({"HF_HOME": "/f", "XDG_CACHE_HOME": "/x"}, "/f/hub"),
        ({"XDG_CACHE_HOME": "/x", "LLAMA_CACHE": ""}, "/x/huggingface/hub"),
        ({}, f"{Path.home()}/.cache/huggingface/hub"),
    ],
)
def test_the_variables_of_llama_cpp_say_where_it_is(environ: dict[str, str], folder: str) -> None:
    assert cache_directory(environ) == Path(folder)


def test_the_snapshot_of_main_comes_first(tmp_path: Path) -> None:
    put(tmp_path, NEW, ref="trunk")
    wanted = put(tmp_path, OLD, ref="main")
    assert HubCache(tmp_path).find(MODEL) == wanted


def test_other_snapshots_are_looked_into_the_newest_first(tmp_path: Path) -> None:
    put(tmp_path, NEW, "other-Q8_0.gguf", ref="main")
    files = [put(tmp_path, commit, "m-Q6_K.gguf") for commit in (OLD, OTHER)]
    os.utime(files[0].parent, (1, 1))
    assert HubCache(tmp_path).find(parse_reference("o/r:Q6_K")) == files[1]


def test_what_cannot_be_read_is_passed_by(tmp_path: Path) -> None:
    wanted = put(tmp_path, OLD)
    refs = tmp_path / "models--o--r" / "refs"
    (refs / "main").mkdir(parents=True)
    (refs / "nonsense").write_text("../..")
    assert HubCache(tmp_path).find(MODEL) == wanted
    wanted.unlink()
    wanted.symlink_to("nowhere")
    assert HubCache(tmp_path).find(MODEL) is None


def test_a_snapshot_of_no_branch_is_enough(tmp_path: Path) -> None:
    wanted = put(tmp_path, OLD)
    assert HubCache(tmp_path).find(MODEL) == wanted


def test_a_cache_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert HubCache(tmp_path / "none").find(MODEL) is None


def test_files_are_moved_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    cache, file = HubCache(tmp_path), HubFile(f"deep/{NAME}", 3, "d" * 64)
    plan = Plan("o/r", NEW, (file,))
    blob = cache.blob("o/r", file)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"abc")
    named = cache.place(plan, file)
    assert named.read_bytes() == b"abc"
    assert not blob.exists()
    assert cache.has(plan, file)
    assert cache.missing_bytes(plan) == 0
    assert cache.place(plan, file) == named


def test_a_broken_name_is_mended(tmp_path: Path) -> None:
    cache, file = HubCache(tmp_path), HubFile(NAME, 3, "d" * 64)
    plan = Plan("o/r", NEW, (file,))
    named = put(tmp_path, NEW)
    named.unlink()
    named.symlink_to("nowhere")
    assert cache.missing_bytes(plan) == 3
    blob = cache.blob("o/r", file)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"abc")
    assert cache.place(plan, file).read_bytes() == b"abc"
