"""Fixtures for tests of plugins and of apps that mount a router.

Found by pytest when the package is installed; everything is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llm_router_mw.router import Router
    from llm_router_mw.testing import FakeDevices, FakeEngine, VirtualClock


@pytest.fixture
def llm_router_engine() -> FakeEngine:
    """An engine without processes; tells what was loaded."""
    from llm_router_mw.testing import FakeEngine

    return FakeEngine()


@pytest.fixture
def llm_router_devices() -> FakeDevices:
    """A probe that knows a host of 64 GiB and nothing else."""
    from llm_router_mw.testing import FakeDevices

    return FakeDevices()


@pytest.fixture
def llm_router_clock() -> VirtualClock:
    """A clock that stands still until it is told to advance."""
    from llm_router_mw.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def make_llm_router(tmp_path: Path, llm_router_engine: FakeEngine) -> Callable[..., Router]:
    """Make routers, not yet entered, whose models echo; called as ``make(*plugins, **options)``."""
    from llm_router_mw.testing import make_router

    def make(*plugins: object, **options: Any) -> Router:
        return make_router(tmp_path, *plugins, fake_engine=llm_router_engine, **options)

    return make
