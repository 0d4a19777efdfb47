"""A place for hosts that is short enough for sockets, and empty again at the end."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llm_router_mw.shared.card import cards


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's runtime directory; hosts that are left when the test ends are killed."""
    folder = Path(tempfile.mkdtemp(prefix="llm-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    for card in cards():
        assert card.pid != os.getpid()
        with suppress(ProcessLookupError):
            os.kill(card.pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)  # a host may be about to write its last line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path
