"""Models that real workers load, and workers that are scripts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_router_mw.types import LoadOptions
from tests.support.tiny_models import write_tiny_llama

# One thread: more of them spin on each other where cores are shared.
OPTIONS = LoadOptions(n_ctx=1024, n_threads=1, n_parallel=4)

_PRELUDE = """
import os, signal, sys, time
from llm_router_mw import wire
from llm_router_mw.types import ContentDelta, FinishDelta, ModelInfo, Usage

def send(message):
    os.write(1, wire.encode(message))

def messages():
    decoder = wire.worker_decoder()
    while data := os.read(0, 65536):
        yield from decoder.feed(data)

def greet():
    send(wire.Ready(wire.PROTOCOL, "0", os.getpid()))

def loaded():
    send(wire.Loaded(ModelInfo(n_ctx=1, n_ctx_train=1, n_vocab=1, n_embd=1, n_params=1,
        size_bytes=1, n_parallel=1, load_seconds=0.0)))

received = messages()
"""

ScriptedWorkers = Callable[[str], None]


@pytest.fixture
def options() -> LoadOptions:
    return OPTIONS


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never ends by itself."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedWorkers:
    """Let the workers that follow be a script; it may use the names of the prelude above."""

    def script(source: str) -> None:
        path = tmp_path / "worker.py"
        path.write_text(_PRELUDE + source)
        monkeypatch.setattr("llm_router_mw.router.process._COMMAND", (sys.executable, str(path)))

    return script
