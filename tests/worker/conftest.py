"""Worker processes that are gone after the test, and models for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tiny_models import write_tiny_llama
from tests.worker.process import LONG_CONTEXT, WorkerProcess


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never ends by itself, and takes long to reach the end of its context."""
    path = tmp_path_factory.mktemp("models") / "endless.gguf"
    return write_tiny_llama(path, n_ctx_train=LONG_CONTEXT)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose vocabulary keeps llama.cpp busy for about half a second, in one native call."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    return write_tiny_llama(path, n_vocab=200_000, n_embd=8, n_head=1, n_layer=1)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker that nobody has talked to yet."""
    process = WorkerProcess(tmp_path / "worker.log")
    yield process
    process.close()
