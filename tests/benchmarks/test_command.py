"""``python -m benchmarks`` and the search for llama-server."""

from __future__ import annotations

import subprocess
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as command
from benchmarks import peer
from benchmarks.outcome import load_outcomes
from benchmarks.table import BEGIN, END


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that knows its version and nothing else."""
    path = tmp_path / "llama-server"
    path.write_text("#!/bin/sh\necho warning\necho 'version: 7 (abc)' >&2\n")
    path.chmod(0o755)
    return path


def test_the_program_is_the_one_that_is_named_else_of_the_environment_else_on_the_path(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_SERVER", "/nowhere/llama-server")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peer.find_or_build(program, tmp_path) == program
    with pytest.raises(peer.PeerError, match="nowhere"):
        peer.find_or_build(None, tmp_path)
    monkeypatch.delenv("LLAMA_SERVER")
    assert peer.find_or_build(None, tmp_path) == program


def test_a_program_that_was_built_before_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")
    release = version("llama-cpp-python")
    binary = tmp_path / f"llama-server-{release}" / "build" / "bin" / "llama-server"
    binary.parent.mkdir(parents=True)
    binary.touch()

    assert peer.find_or_build(None, tmp_path) == binary


def test_a_program_that_is_nowhere_is_built_of_the_sources_of_the_installed_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    tree = Path("llama_cpp_python") / "vendor" / "llama.cpp"

    def run(command: list[str], **options: object) -> None:
        ran.append(command)
        if "download" in command:
            (tmp_path / tree).mkdir(parents=True)
            archive = Path(command[command.index("--dest") + 1]) / "sources.tar.gz"
            with tarfile.open(archive, "w:gz") as packed:
                packed.add(tmp_path / tree, tree)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv("LLAMA_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")

    binary = peer.find_or_build(None, tmp_path / "cache")

    release = version("llama-cpp-python")
    directory = tmp_path / "cache" / f"llama-server-{release}"
    assert binary == directory / "build" / "bin" / "llama-server"
    assert ran[0][-1] == f"llama-cpp-python=={release}"
    assert ran[1][:3] == ["cmake", "-S", str(directory / tree)]
    assert ran[2][-3:] == ["--target", "llama-server", "--parallel"]


def test_a_build_that_fails_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.delenv("LLAMA_SERVER", raising=False)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(peer.PeerError, match="install it and name it with --llama-server"):
        peer.find_or_build(None, tmp_path)


def test_the_programs_version_is_what_it_says(program: Path) -> None:
    assert peer.peer_version(program) == "version: 7 (abc)"


def test_a_run_shows_keeps_and_writes_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    document, results = tmp_path / "page.md", tmp_path / "results.json"
    document.write_text(f"{BEGIN}\n{END}\n")
    options = ["--quick", "--tiny", "--no-peer", "--rounds", "1", "--threads", "1"]
    options += ["--only", "throughput-4", "--cache-dir", str(tmp_path)]
    options += ["--results", str(results), "--write", str(document)]

    ran = CliRunner().invoke(command.main, ["engine", *options])

    assert ran.exit_code == 0, ran.output
    assert "4 streams" in ran.output
    assert [outcome.scenario for outcome in load_outcomes(results)] == ["throughput-4"]
    assert "| 4 streams, 16 tokens each | tokens/s |" in document.read_text()


def test_an_unknown_scenario_is_refused_with_the_names_of_all() -> None:
    ran = CliRunner().invoke(command.main, ["engine", "--only", "nonsense", "--no-peer"])

    assert ran.exit_code == 2
    assert "no scenario nonsense; there are throughput-1, " in ran.output


def test_a_document_without_room_for_the_table_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    document = tmp_path / "page.md"
    document.write_text("text")

    ran = CliRunner().invoke(command.main, ["engine", "--no-peer", "--write", str(document)])

    assert ran.exit_code == 2
    assert "has no lines" in ran.output


def test_a_program_that_cannot_be_found_is_a_one_line_error(tmp_path: Path) -> None:
    missing = ["--llama-server", str(tmp_path / "missing"), "--cache-dir", str(tmp_path)]

    ran = CliRunner().invoke(command.main, ["engine", *missing])

    assert ran.exit_code == 1
    assert ran.output.startswith("Error: ")
