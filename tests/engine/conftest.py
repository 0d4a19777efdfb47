"""Tiny models, written once, and engines over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.support.tiny_models import write_tiny_bert, write_tiny_llama

Load = Callable[..., Driver]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def endless(folder: Path) -> Path:
    """A model that never ends by itself; each of its tokens is ASCII text."""
    return write_tiny_llama(folder / "endless.gguf")


@pytest.fixture(scope="session")
def reciter(folder: Path) -> Path:
    """A model that says ``Hello, world€!`` and ends; the euro is three tokens."""
    says = ("Hello", ",", " wor", "ld", "<0xE2>", "<0x82>", "<0xAC>", "!")
    return write_tiny_llama(folder / "reciter.gguf", says=says)


@pytest.fixture(scope="session")
def encoder(folder: Path) -> Path:
    return write_tiny_bert(folder / "encoder.gguf", n_ctx_train=300)


@pytest.fixture
def load() -> Iterator[Load]:
    """Load an engine that is freed after the test."""
    drivers: list[Driver] = []

    def load_one(path: Path, **options: Any) -> Driver:
        drivers.append(Driver(path, **options))
        return drivers[-1]

    yield load_one
    for driver in drivers:
        driver.close()
