"""A snapshot to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.snapshots import written


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "x.kv"
    written(path)
    yield path
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".part"] == []
