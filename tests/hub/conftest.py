"""What the tests of this folder hand on themselves, instead of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_hub import FakeHub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The directory of the cache; it does not exist yet."""
    return tmp_path / "cache"


@pytest.fixture
def environ(hub: FakeHub, cache: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HUB_CACHE": str(cache)}
