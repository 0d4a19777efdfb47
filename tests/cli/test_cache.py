"""Conversations in a directory can be looked at and removed without a router."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from llm_router_mw.cli import main
from tests.support.fake_handle import sequence, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    write(folder / "1.kv", sequence(0, 1, 2), "/models/guide.gguf#1")
    old = write(folder / "2.kv", sequence(0, 1), "/models/other.gguf#2")
    os.utime(old.path, (time.time() - 200_000,) * 2)
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, ["cache", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_tells_of_models_and_sizes(folder: Path) -> None:
    lines = run("list", "--kv-cache-dir", folder).splitlines()
    assert lines[0].split()[:3] == ["model", "tokens", "size"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["guide.gguf", "128", "1.0", "MiB"],
        ["other.gguf", "64", "1.0", "MiB"],
    ]


@pytest.mark.parametrize("name", ["other", "other.gguf", "/models/other.gguf"])
def test_those_of_one_model_can_be_removed(folder: Path, name: str) -> None:
    out = run("purge", "--kv-cache-dir", folder, "--model", name)
    assert "removed 1 saved conversations, 1.0 MiB" in out
    assert [path.name for path in folder.iterdir()] == ["1.kv"]


def test_old_ones_can_be_removed(folder: Path) -> None:
    run("purge", "--kv-cache-dir", folder, "--older-than", 1)
    assert [path.name for path in folder.iterdir()] == ["1.kv"]


def test_all_can_be_removed(folder: Path) -> None:
    (folder / "notes.txt").touch()
    run("purge", "--kv-cache-dir", folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_looking_changes_nothing(folder: Path) -> None:
    (folder / "strange.kv").write_bytes(b"?")
    run("list", "--kv-cache-dir", folder)
    assert (folder / "strange.kv").exists()
