"""Models for the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.memory_pool import UNIT
from tests.support.sized_models import write_sized_model
from tests.support.tiny_models import write_tiny_bert, write_tiny_llama


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of models: ``a``, ``b`` and ``slow`` never end by themselves, ``hello`` does."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_llama(folder / "a.gguf", seed=1, n_ctx_train=8192)
    write_tiny_llama(folder / "b.gguf", seed=2, n_ctx_train=8192)
    # Some milliseconds a token: long enough to act while it talks.
    write_tiny_llama(folder / "slow.gguf", n_embd=512, n_layer=6, n_ctx_train=8192)
    write_tiny_llama(folder / "hello.gguf", says=("Hello", " wor", "ld"))
    write_tiny_bert(folder / "bert.gguf")
    return folder


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the small models ``a`` to ``d``, which never end by themselves."""
    folder = tmp_path_factory.mktemp("letters")
    for seed, name in enumerate("abcd"):
        write_tiny_llama(folder / f"{name}.gguf", seed=seed, n_ctx_train=8192)
    return folder


@pytest.fixture(scope="session")
def sized_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Models by name, as the option ``models`` takes them; their processes hold so many units:

    ``embedding`` 6, ``medium`` 37, ``left`` and ``right`` 70 each, ``giant`` 81, ``huge`` more than
    there are.
    """
    folder = tmp_path_factory.mktemp("sized")
    # What the process holds besides the weights is about four units.
    units = {"embedding": 2.5, "medium": 33.4, "left": 66, "right": 66, "giant": 77, "huge": 150}
    models = {
        name: {"path": str(write_sized_model(folder / f"{name}.gguf", int(size * UNIT)))}
        for name, size in units.items()
    }
    models["embedding"]["pooling"] = "mean"
    return models
