"""The log of llama.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.engine.native import NativeLog
from tests.engine.conftest import Load

INFO, WARNING, ERROR, CONTINUED = 2, 3, 4, 5


def test_errors_are_kept_for_messages_and_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    log = NativeLog()
    for level, text in [
        (INFO, b"loading\n"),
        (ERROR, b"first\n"),
        (WARNING, b"careful\n"),
        (ERROR, b"second"),
        (CONTINUED, b" half\n"),
        (ERROR, b"\n"),
    ]:
        log.take(level, text, None)
    assert log.last_errors() == "first; second half"
    assert capfd.readouterr().err == "first\ncareful\nsecond half\n\n"


def test_dots_of_progress_are_not_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    log = NativeLog()
    log.take(ERROR, b"bad\n", None)
    log.take(INFO, b"loading", None)
    log.take(CONTINUED, b".", None)
    assert log.last_errors() == "bad"
    assert capfd.readouterr().err == "bad\n"


def test_only_the_last_lines_are_kept() -> None:
    log = NativeLog(size=3)
    for number in range(9):
        log.take(ERROR, b"%d" % number, None)
    assert log.last_errors(2) == "7; 8"
    log.clear()
    assert log.last_errors() == ""


def test_a_warning_of_a_real_load_is_passed_on(
    load: Load, endless: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load(endless, n_ctx=4096)
    (line,) = capfd.readouterr().err.splitlines()
    assert "training context overflow" in line
