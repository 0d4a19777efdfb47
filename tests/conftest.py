"""Fixtures that several folders of tests share."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_router_mw
from tests.support.fake_hub import FakeHub


@pytest.fixture(scope="session", autouse=True)
def folders_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from, or left in, the folders of who runs the tests."""
    with (
        pytest.MonkeyPatch.context() as environment,
        # Not where the others are: the path of a socket has to be short.
        tempfile.TemporaryDirectory(prefix="run-", ignore_cleanup_errors=True) as runtime,
    ):
        for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
            environment.setenv(name, str(tmp_path_factory.mktemp(name)))
        environment.setenv("XDG_RUNTIME_DIR", runtime)
        yield


@pytest.fixture(scope="session", autouse=True)
def interrupts_that_work() -> None:
    """A run in a shell's background ignores interrupts, and so would all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_models() -> Path:
    """The directory of the two models that ship inside the package."""
    return Path(llm_router_mw.__file__).parent / "demo_models"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with nothing in it, and an empty cache, for all who go by the environment."""
    with FakeHub().running() as running:
        for name in ("LLAMA_CACHE", "MODEL_ENDPOINT", "HF_TOKEN", "LLAMA_ARG_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        yield running
