"""A load that takes no memory gives the figures of a real one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_router_mw.engine import breakdown
from llm_router_mw.engine import dry_run as module
from llm_router_mw.engine.dry_run import dry_run
from llm_router_mw.engine.untouched import untouched_memory
from llm_router_mw.errors import ModelLoadError, NotSupportedError
from llm_router_mw.types import BufferMemory, LoadOptions, Placement
from tests.engine.conftest import Load
from tests.support.tiny_architectures import ARCHITECTURES, write_tiny


def total(buffers: tuple[BufferMemory, ...]) -> tuple[int, int, int]:
    """Return bytes of weights, context and compute."""
    return (
        sum(each.weights_bytes for each in buffers),
        sum(each.context_bytes for each in buffers),
        sum(each.compute_bytes for each in buffers),
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_what_a_real_load_holds(load: Load, folder: Path, architecture: str) -> None:
    path = write_tiny(folder / f"dry-{architecture}.gguf", architecture)
    options = {"n_ctx": 512, "n_parallel": 3, "n_threads": 1, "use_mmap": False}
    real = load(path, **options).info.memory
    assert real is not None
    dry = dry_run(str(path), LoadOptions(**options), Placement())  # type: ignore[arg-type]
    assert total(dry.buffers) == total(real.buffers)
    assert (dry.note, real.note) == ("", "")


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("architecture", ["mamba", "granitehybrid", "qwen35"])
def test_large_states_are_reckoned_from_two_sequences(
    folder: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, unified: bool
) -> None:
    path = write_tiny(folder / f"scaled-{architecture}.gguf", architecture)
    options = LoadOptions(n_ctx=2048, n_parallel=6, kv_unified=unified)
    exact = dry_run(str(path), options, Placement())
    monkeypatch.setattr(module, "MAX_STATE_BYTES", 1)
    monkeypatch.setattr(module, "MAX_UNTOUCHED_BYTES", 1)
    scaled = dry_run(str(path), options, Placement())
    assert scaled.note == module.SCALED
    assert total(scaled.buffers)[:2] == total(exact.buffers)[:2]
    assert total(scaled.buffers)[2] == pytest.approx(total(exact.buffers)[2], rel=0.3)


@pytest.mark.parametrize("is_untouched", [True, False])
def test_large_states_are_exact_where_they_need_not_be_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_untouched: bool
) -> None:
    path = write_tiny(folder / "untouched.gguf", "mamba")
    monkeypatch.setattr(module, "MAX_STATE_BYTES", 1)
    offered = untouched_memory.offered
    monkeypatch.setattr(untouched_memory, "offered", lambda: offered(wanted=is_untouched))
    found = dry_run(str(path), LoadOptions(n_ctx=512, n_parallel=3), Placement())
    works = is_untouched and sys.platform == "linux"
    assert found.note == ("" if works else module.SCALED)


def test_a_refusal_is_told_in_the_words_of_llama(tmp_path: Path, endless: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"could not load the model: .*failed to open"):
        dry_run(str(tmp_path / "gone.gguf"), LoadOptions(), Placement())
    quantised = LoadOptions(n_ctx=256, type_v="q8_0", flash_attn="off")
    with pytest.raises(ModelLoadError, match=r"could not create the context: .*flash"):
        dry_run(str(endless), quantised, Placement())


def test_an_answer_that_cannot_be_read_is_no_failure_of_the_model(
    endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakdown, "_SYMBOL", "no_such_function")
    with pytest.raises(NotSupportedError, match="cannot be read"):
        dry_run(str(endless), LoadOptions(n_ctx=256), Placement())
