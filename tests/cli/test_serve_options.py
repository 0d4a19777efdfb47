"""What ``serve`` refuses before it starts: in one line, with advice, never a traceback."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llm_router_mw.cli import log, main
from llm_router_mw.errors import ConfigError


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the test runner's logging as it is."""
    monkeypatch.setattr(log, "configure", lambda *, verbose: None)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve", *map(str, arguments)])


def assert_refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    for word in words:
        assert word in last


def test_no_models_at_all() -> None:
    assert_refused(run(), 2, "--models-dir", "-m")


def test_a_missing_directory(tmp_path: Path) -> None:
    assert_refused(run("--models-dir", tmp_path / "none"), 1, "does not exist", "create it")


def test_a_file_for_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.touch()
    assert_refused(run("--models-dir", file), 1, "is not a directory")


def test_an_unreadable_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may read everything, so the answer of the system is what is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert_refused(run("--models-dir", tmp_path), 1, "cannot be read", "--models-dir")


def test_a_missing_file(tmp_path: Path) -> None:
    assert_refused(run("-m", tmp_path / "a.gguf"), 1, "does not exist", "-m")


def test_a_missing_adapter(tmp_path: Path) -> None:
    refused = run("--models-dir", tmp_path, "--lora", tmp_path / "a.gguf")
    assert_refused(refused, 1, "does not exist", "--lora")


def test_adapters_are_handed_to_the_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def refuse(**options: Any) -> None:
        given.extend(options["lora"])
        raise ConfigError("enough")

    monkeypatch.setitem(vars(sys.modules["llm_router_mw.cli.serve"]), "Router", refuse)
    (tmp_path / "a.gguf").touch()
    path = str(tmp_path / "a.gguf")
    run("--models-dir", tmp_path, "--lora", path, "--lora-scaled", f"{path}:0.5")
    assert given == [{"path": path, "scale": 1.0}, {"path": path, "scale": 0.5}]


def test_two_files_of_one_name(tmp_path: Path) -> None:
    files = [tmp_path / folder / "a.gguf" for folder in ("x", "y")]
    for file in files:
        file.parent.mkdir()
        file.touch()
    assert_refused(run("-m", files[0], "-m", files[1]), 2, "'a'", "rename")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "70000"),
        ("--port", "http"),
        ("--models-max", "-1"),
        ("-c", "-1"),
        ("-np", "0"),
        ("-t", "many"),
        ("--stop-timeout", "0"),
    ],
)
def test_a_bad_number(arguments: tuple[str, str], tmp_path: Path) -> None:
    assert_refused(run("--models-dir", tmp_path, *arguments), 2, "Invalid value")


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("--models-dir", tmp_path, "--port", port)
    assert_refused(refused, 1, str(port), "choose another")


def test_options_that_the_router_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise ConfigError("models_max is 7; it must be less")

    monkeypatch.setitem(vars(sys.modules["llm_router_mw.cli.serve"]), "Router", refuse)
    assert_refused(run("--models-dir", tmp_path), 1, "models_max is 7")


def test_a_shared_router_is_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def refuse(**options: Any) -> None:
        given.update(options)
        raise ConfigError("enough")

    monkeypatch.setitem(vars(sys.modules["llm_router_mw.cli.serve"]), "RemoteRouter", refuse)
    shared = ("--mode", "shared", "--shared-name", "ours", "--shared-grace-seconds", "5")
    assert_refused(run("--models-dir", tmp_path, *shared), 1, "enough")
    assert given["mode"] == "shared"
    assert (given["shared_name"], given["shared_grace_seconds"]) == ("ours", 5.0)
