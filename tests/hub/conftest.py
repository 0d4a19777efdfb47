"""A hub and a cache of their own for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_hub import FakeHub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().running() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The directory of the cache; it does not exist yet."""
    return tmp_path / "cache"


@pytest.fixture
def environ(hub: FakeHub, cache: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(cache)}
