"""What llama.cpp would abort over is refused before it is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_router_mw.engine import impossible
from llm_router_mw.engine.dry_run import dry_run
from llm_router_mw.errors import ModelLoadError
from llm_router_mw.memory.dry_run_order import DryRunAnswer, DryRunOrder
from llm_router_mw.types import LoadOptions, Placement
from tests.support.sparse_models import write_sparse_model

SEPARATE: dict[str, Any] = {"n_parallel": 2, "kv_unified": False, "n_ctx": 2048}
ABORTING = LoadOptions(type_k="q8_0", type_v="q8_0", use_mmap=False, **SEPARATE)


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sparse_model(tmp_path_factory.mktemp("models") / "phi.gguf", "phi3-14b")


def test_the_child_lives_and_says_what_to_do(phi: Path) -> None:
    order = DryRunOrder(path=str(phi), options=ABORTING, placement=Placement())
    child = subprocess.run(
        (sys.executable, "-m", "llm_router_mw.worker.dry_run"),
        input=msgspec.json.encode(order) + b"\n",
        capture_output=True,
        check=True,
    )
    answer = msgspec.json.decode(child.stdout, type=DryRunAnswer)
    assert answer.failure is not None
    assert "set kv_unified, or type_k to 'f16'" in answer.failure.message


@pytest.mark.parametrize(
    "change", [{"kv_unified": True}, {"type_k": "f16"}, {"type_v": "f16"}, {"n_parallel": 1}]
)
def test_what_it_advises_works(phi: Path, change: dict[str, Any]) -> None:
    options = msgspec.structs.replace(ABORTING, **change)
    assert dry_run(str(phi), options, Placement()).buffers


def test_it_really_aborts_without_the_refusal(phi: Path) -> None:
    code = (
        "from llm_router_mw.engine import dry_run as module; "
        "module.refuse_impossible = lambda *_: None; "
        "from llm_router_mw.types import LoadOptions, Placement; "
        f"module.dry_run({str(phi)!r}, LoadOptions(n_parallel=2, kv_unified=False, n_ctx=2048, "
        "type_k='q8_0', type_v='q8_0', use_mmap=False), Placement())"
    )
    child = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, env={"GGML_NO_BACKTRACE": "1"}
    )
    assert child.returncode < 0, "llama.cpp has learned it: the refusal can go"


def test_other_architectures_are_left_alone(tmp_path: Path) -> None:
    path = write_sparse_model(tmp_path / "other.gguf", "llama-1b")
    assert dry_run(str(path), ABORTING, Placement()).buffers


def test_the_architecture_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impossible, "architecture", lambda _: "phi3")
    with pytest.raises(ModelLoadError, match="quantised keys and values"):
        impossible.refuse_impossible(None, ABORTING)
