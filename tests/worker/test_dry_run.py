"""The child that loads without memory, as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from llm_router_mw.memory.dry_run_order import DryRunAnswer, DryRunOrder
from llm_router_mw.types import HOST, LoadOptions, Placement
from tests.support.sparse_models import BROKEN, write_sparse_model

CHILD = (sys.executable, "-P", "-m", "llm_router_mw.worker.dry_run")
OPTIONS = LoadOptions(n_ctx=4096, use_mmap=False)


def run(*orders: DryRunOrder) -> subprocess.CompletedProcess[bytes]:
    lines = b"".join(msgspec.json.encode(order) + b"\n" for order in orders)
    return subprocess.run(CHILD, input=lines, capture_output=True, env=os.environ, timeout=30)


def answers(child: subprocess.CompletedProcess[bytes]) -> list[DryRunAnswer]:
    assert child.returncode == 0, child.stderr.decode()
    return [msgspec.json.decode(line, type=DryRunAnswer) for line in child.stdout.splitlines()]


def test_each_order_is_answered(tmp_path: Path) -> None:
    path = write_sparse_model(tmp_path / "large.gguf", "llama-70b")
    order = DryRunOrder(path=str(path), options=OPTIONS, placement=Placement())
    missing = DryRunOrder(path=str(tmp_path / "gone.gguf"), options=OPTIONS)
    measured, failed = answers(run(order, missing))
    assert measured.memory is not None
    assert {buffer.device for buffer in measured.memory.buffers} == {HOST}
    weights = sum(buffer.weights_bytes for buffer in measured.memory.buffers)
    assert 0 <= path.stat().st_size - weights < 64 * 1024
    assert failed.memory is None
    assert failed.failure is not None
    assert "dry run" in failed.failure.message


def test_a_file_that_makes_llama_abort_ends_only_the_child_and_quietly(tmp_path: Path) -> None:
    path = write_sparse_model(tmp_path / "broken.gguf", BROKEN)
    child = run(DryRunOrder(path=str(path), options=OPTIONS))
    assert child.returncode < 0
    assert b"GGML_ASSERT" in child.stderr
    assert b"#0 " not in child.stderr, "a debugger was started"
    assert not child.stdout


def test_the_web_framework_and_the_plugin_manager_stay_out(tmp_path: Path) -> None:
    # What the package of the bindings brings along may have the web framework with it.
    code = "import sys; from llm_router_mw.engine.bare import import_bindings_only; " + (
        "import_bindings_only(); "
        "import llm_router_mw.worker.dry_run, llm_router_mw.engine.dry_run; "
        "print({'starlette', 'pluggy', 'asyncio'} & set(sys.modules))"
    )
    child = subprocess.run((sys.executable, "-c", code), capture_output=True, check=True)
    assert child.stdout.strip() == b"set()"


def test_only_the_bindings_are_imported_of_what_belongs_to_llama() -> None:
    code = "import sys; from llm_router_mw.engine.bare import import_bindings_only; " + (
        "import_bindings_only(); import llm_router_mw.engine.dry_run; "
        "print({'numpy', 'jinja2', 'diskcache', 'llama_cpp.llama'} & set(sys.modules))"
    )
    child = subprocess.run((sys.executable, "-c", code), capture_output=True, check=True)
    assert child.stdout.strip() == b"set()"
