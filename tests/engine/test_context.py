"""The shared context: what it is asked for, and what it may be used for."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_router_mw.engine.native import llama
from tests.engine.conftest import Load
from tests.engine.driver import prompt
from tests.support.tiny_models import write_tiny_llama


def test_a_model_with_learned_positions_never_goes_beyond_them(
    load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # llama.cpp rounds the context up to 512, where a table of 300 positions has long ended.
    path = write_tiny_llama(folder / "short.gguf", n_ctx_train=300)
    monkeypatch.setattr(
        "llama_cpp.llama_cpp.llama_model_rope_type", lambda model: llama.LLAMA_ROPE_TYPE_NONE
    )
    driver = load(path, n_ctx=0)
    assert driver.info.n_ctx == 300
    request = driver.submit(prompt())
    driver.run()
    assert driver.finish(request).usage.total_tokens == 300


def test_a_batch_is_never_smaller_than_the_number_of_sequences(load: Load, endless: Path) -> None:
    driver = load(endless, n_parallel=6, n_batch=1)
    requests = [driver.submit(prompt((300 + n,), max_tokens=5)) for n in range(6)]
    driver.run()
    assert max(driver.rows) == 6
    assert all(driver.finish(request).reason == "length" for request in requests)
