"""Fixtures that several folders of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

import llm_router_mw


@pytest.fixture(scope="session")
def demo_models() -> Path:
    """The directory of the two models that ship inside the package."""
    return Path(llm_router_mw.__file__).parent / "demo_models"
