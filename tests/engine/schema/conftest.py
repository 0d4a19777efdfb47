"""llama.cpp's judgement of texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.following import Judge, judge


@pytest.fixture(scope="session")
def texts(endless: Path) -> Iterator[Judge]:
    with judge(endless) as found:
        yield found
