"""The table of estimates beside the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import memory_times
from benchmarks.__main__ import main
from benchmarks.memory import Row, markdown
from benchmarks.memory_formulas import file_size_rule, ollama_rule
from benchmarks.memory_times import time_estimates
from benchmarks.table import BEGIN, END
from llm_router_mw.memory.model_file import ModelFiles
from llm_router_mw.types import Model
from tests.support.sparse_models import write_sparse_model


def test_the_rules_of_others_are_what_they_say(tmp_path: Path) -> None:
    path = write_sparse_model(tmp_path / "m.gguf", "llama-8b")
    file = ModelFiles().read(Model(id="m", path=str(path), source="test"))
    size = path.stat().st_size
    assert file_size_rule(file) == int(size * 1.2) + 2 * 2**30
    # 32 layers, 8 heads for keys and values, each 128 wide, in half precision.
    assert ollama_rule(file, 1000) == size + 2 * 32 * 8 * 128 * 1000 * 2


def test_a_row_shows_the_typical_error_and_the_extremes() -> None:
    ends = (-0.5, 2.0)
    row = Row(name="m", ours=(0.01, -0.03), scratch=(0.1,), most=ends, file_size=ends, ollama=ends)
    assert row.cells() == ("m", "2", "2.0% (10.0%)", *["-50% … +200%"] * 3)
    lines = markdown([row], ["It takes 1 ms."]).splitlines()
    assert lines[2].startswith("| m | 2 |")
    assert lines[-1] == "It takes 1 ms."


def test_times_are_told_of_a_large_vocabulary_and_of_dry_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_times, "_TIMES", 1)
    cold, dry_run = time_estimates(tmp_path, ["minilm"])
    assert cold.startswith("A cold estimate with 151,936 tokens and as many merges takes ")
    assert dry_run.startswith("A dry run of minilm takes ")


def test_the_command_writes_the_table_into_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_times, "_TIMES", 1)
    document = tmp_path / "page.md"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    arguments = ["memory", "--loads", "1", "--only", "minilm", "--write", str(document)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    text = document.read_text()
    assert "| minilm | 1 |" in text
    assert "| all | 1 |" in text
    assert "A dry run of llama-8b takes " in text
    assert "\nold\n" not in text
