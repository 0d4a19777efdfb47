"""``llm-router-mw serve --download-only``, and what else ``serve`` is told of the hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from llm_router_mw.cli import log, main
from llm_router_mw.errors import ConfigError
from llm_router_mw.hub import Hub
from llm_router_mw.hub_reference import parse_reference
from llm_router_mw.testing.gguf import small_model
from tests.support.fake_hub import FakeHub

REPO = "owner/tiny-GGUF"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the test runner's logging as it is."""
    monkeypatch.setattr(log, "configure", lambda *, verbose: None)


@pytest.fixture
def content(hub: FakeHub) -> bytes:
    """Put two quantisations of a model into the hub."""
    content = small_model().data() + bytes(3 * 1024**2)
    for quant in ("Q4_K_M", "Q8_0"):
        hub.add(REPO, f"tiny-{quant}.gguf", content)
    return content


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve", *map(str, arguments)])


def rows(result: Result) -> dict[str, list[str]]:
    """Return the words of each row of the table, by model."""
    lines = [line.split() for line in result.output.splitlines()]
    head = next(number for number, line in enumerate(lines) if line[:2] == ["model", "state"])
    return {words[0]: words[1:] for words in lines[head + 1 :] if words and words[0][-1] != ":"}


def test_all_that_is_missing_is_fetched(hub: FakeHub, content: bytes) -> None:
    models = ("-hf", REPO, "-hf", f"{REPO}:q8_0")
    first = run(*models, "--download-only")
    assert first.exit_code == 0, first.output
    assert rows(first) == {
        REPO: ["downloaded", "0.0", "GiB"],
        f"{REPO}:Q8_0": ["downloaded", "0.0", "GiB"],
    }
    asked = len(hub.asked)
    again = run(*models, "--download-only", "--offline")
    assert again.exit_code == 0
    assert rows(again)[REPO] == ["was", "here", "0.0", "GiB"]
    assert len(hub.asked) == asked


def test_what_could_not_be_fetched_is_told_at_the_end(hub: FakeHub, content: bytes) -> None:
    result = run("-hf", "owner/none", "-hf", f"{REPO}:Q8_0", "--download-only")
    assert result.exit_code == 1
    found = rows(result)
    assert found["owner/none"] == ["failed"]
    assert result.output.splitlines()[-1].startswith("owner/none: the hub has no owner/none, ")
    assert found[f"{REPO}:Q8_0"][0] == "downloaded"


def test_offline_says_what_is_missing(hub: FakeHub, content: bytes) -> None:
    result = run("-hf", REPO, "--download-only", "--offline")
    assert result.exit_code == 1
    assert "is not in the hub's cache" in result.output
    assert hub.asked == []


def test_without_models_of_the_hub_there_is_nothing_to_do(tmp_path: Path) -> None:
    small_model().write(tmp_path / "a.gguf")
    result = run("--models-dir", tmp_path, "--download-only")
    assert result.exit_code == 0
    assert "there is nothing to download" in result.output


def test_models_of_a_plugin_are_fetched_too(
    hub: FakeHub, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more_models.py").write_text(
        f"""
from types import SimpleNamespace
from llm_router_mw import hookimpl
from llm_router_mw.types import Model

@hookimpl
def llm_router_register_model_sources():
    mine = Model(id="mine", path="hf://{REPO}:Q8_0", source="more")
    return [SimpleNamespace(name="more", models=lambda: [mine])]
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = run("-hf", REPO, "--plugin", "more_models", "--download-only")
    assert result.exit_code == 0, result.output
    assert rows(result)["mine"][0] == "downloaded"


def test_a_catalog_that_cannot_be_read_is_told(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*sources: object) -> None:
        raise ConfigError("two models have one name")

    monkeypatch.setattr("llm_router_mw.cli.download.Catalog", refuse)
    result = run("-hf", REPO, "--download-only")
    assert result.exit_code == 1
    assert "Error: two models have one name" in result.output


def test_progress_is_shown_on_a_terminal(
    hub: FakeHub, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_router_mw.cli.download.sys", _Terminal())
    assert run("-hf", REPO, "--download-only").exit_code == 0


class _Terminal:
    """The system, as a program sees it that people run."""

    stdout = sys.stdout

    class stderr:
        @staticmethod
        def isatty() -> bool:
            return True


# What serve hands on


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the router is given; it is not made."""
    given: list[dict[str, Any]] = []

    def refuse(**options: Any) -> None:
        given.append(options)
        raise ConfigError("enough")

    monkeypatch.setattr("llm_router_mw.cli.serve.Router", refuse)
    return given


def test_the_flags_become_options(given: list[dict[str, Any]]) -> None:
    run("-hf", "o/a:q4_0", "--hf-repo", "o/b", "-hft", "hf_x", "--offline")
    (options,) = given
    assert options["models"] == {
        "o/a:Q4_0": {"hf_repo": "o/a:q4_0", "hf_file": None},
        "o/b": {"hf_repo": "o/b", "hf_file": None},
    }
    assert (options["hf_token"], options["offline"]) == ("hf_x", True)


def test_a_file_of_the_repository_may_be_named(given: list[dict[str, Any]]) -> None:
    run("-hf", "o/a", "-hff", "deep/a.gguf")
    assert given[0]["models"] == {"o/a": {"hf_repo": "o/a", "hf_file": "deep/a.gguf"}}


def test_offline_may_come_from_the_environment(
    given: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_ARG_OFFLINE", "1")
    run("-hf", "o/a")
    assert given[0]["offline"] is True


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("-hf", "name"), "hf_repo 'name' is not a repository"),
        (("-hf", "o/a", "-hf", "o/a"), "the model 'o/a' is named twice"),
        (("-hf", "o/a", "-hf", "o/b", "-hff", "x.gguf"), "-hff names a file in one repository"),
        (("-hf", "o/a", "-hff", "../x.gguf"), "is not the path of a .gguf file"),
        (("-hff", "x.gguf", "--models-dir", "."), "give one -hf with it"),
        ((), "a repository with -hf"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], problem: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert problem in " ".join(result.output.replace("│", "").split())


def test_a_missing_library_is_told_with_the_command_that_installs_it(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llm_router_mw.hub.client", None)
    result = run("-hf", REPO, "--download-only")
    assert result.exit_code == 1
    assert "pip install 'llm-router-mw[hub]'" in result.output
    assert Hub({}).find(parse_reference(REPO)) is None
