"""What a loaded instance says that it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.engine import breakdown, measure
from llm_router_mw.types import HOST
from tests.engine.conftest import Load


def test_a_load_reports_its_buffers_and_the_process(load: Load, endless: Path) -> None:
    memory = load(endless, n_ctx=1024).info.memory
    assert memory is not None
    assert {each.device for each in memory.buffers} == {HOST}
    assert sum(each.context_bytes for each in memory.buffers) == 2 * 2 * 1024 * 64 * 2
    names = {each.buffer_type for each in memory.buffers}
    assert {"CPU_Mapped", "output"} <= names
    assert memory.peak_bytes >= memory.private_bytes > 1_000_000


def test_what_cannot_be_read_is_left_out_with_the_reason(
    load: Load, endless: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(breakdown, "_SYMBOL", "no_such_function")
    monkeypatch.setattr(measure, "process_memory", lambda pid: None)
    monkeypatch.setattr(measure, "_STATUS", tmp_path / "gone")
    memory = load(endless).info.memory
    assert memory is not None
    assert memory.buffers == ()
    assert "does not tell" in memory.note
    assert (memory.private_bytes, memory.peak_bytes) == (0, 0)
