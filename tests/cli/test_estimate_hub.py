"""``llm-router-mw estimate`` of models of the hub: from their headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from llm_router_mw.cli import main
from tests.support.fake_hub import FakeHub
from tests.support.model_headers import write_sparse

REPO = "owner/giant-GGUF"
CARD = ("--devices", "cuda:2GiB,host:8GiB")
FLAGS = ("-c", "4096", "-ngl", "2", "-ctk", "q8_0", "-fa", "on")


@pytest.fixture
def file(hub: FakeHub, tmp_path: Path) -> Path:
    """A model that is in the hub too."""
    path = write_sparse(tmp_path / "giant-Q4_K_M.gguf", metadata={"context_length": 131_072})
    hub.add(REPO, path.name, path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["estimate", *map(str, arguments)])


def json(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = msgspec.json.decode(result.output)
    return parsed


@pytest.mark.parametrize("flags", [CARD, (*CARD, *FLAGS)])
def test_it_is_as_that_of_the_file(hub: FakeHub, file: Path, flags: tuple[str, ...]) -> None:
    of_the_file = json(file, *flags)
    of_the_hub = json(f"{REPO}:q4_k_m", *flags)
    assert of_the_hub.pop("model") == f"{REPO}:Q4_K_M"
    assert of_the_file.pop("model") == file.name
    assert of_the_hub == of_the_file


def test_the_model_is_not_downloaded(hub: FakeHub, file: Path) -> None:
    result = run(REPO, *CARD)
    assert result.exit_code == 0
    assert result.output.startswith(f"{REPO}: llama, 8192 tokens of context\n")
    assert hub.count("cdn") == 1
    assert hub.sent_bytes <= 1024**2 < file.stat().st_size


def test_a_file_of_the_repository_may_be_named(hub: FakeHub, file: Path) -> None:
    assert json(REPO, "-hff", file.name, *CARD)["model"] == f"{REPO}/{file.name}"
    result = run(REPO, "-hff", "other.gguf", *CARD)
    assert result.exit_code == 1
    assert f"{REPO} has no file other.gguf; it has {file.name}" in result.output


def test_a_token_is_sent(hub: FakeHub, file: Path) -> None:
    hub.token = "hf_secret"
    assert "give a token with -hft or HF_TOKEN" in run(REPO, *CARD).output
    assert run(REPO, "-hft", "hf_secret", *CARD).exit_code == 0


def test_offline_takes_what_is_cached(hub: FakeHub, file: Path) -> None:
    refused = run(REPO, "--offline", *CARD)
    assert refused.exit_code == 1
    assert f"Error: {REPO} is not in the hub's cache, and offline is set" in refused.output
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("owner/none.gguf", "the model file 'owner/none.gguf' does not exist; check the path"),
        ("none", "there is no file 'none', and as hf_repo 'none' is not a repository; write it"),
        ("owner/none", "the hub has no owner/none, or does not show it (404)"),
    ],
)
def test_what_is_neither_here_nor_there_is_told(hub: FakeHub, name: str, problem: str) -> None:
    result = run(name, *CARD)
    assert result.exit_code == 1
    assert problem in result.output
    assert "Traceback" not in result.output
