"""What llama.cpp was built with shows in the libraries beside it; none of them is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llm_router_mw.memory import backends
from llm_router_mw.memory.backends import installed_backends


def built_with(folder: Path, *libraries: str) -> frozenset[str]:
    for name in libraries:
        (folder / name).touch()
    return installed_backends({"LLAMA_CPP_LIB_PATH": str(folder)})


@pytest.mark.parametrize(
    ("libraries", "kinds"),
    [
        ([], set()),
        (["libggml.so", "libggml-base.so", "libggml-cpu.so.0.25.3", "libllama.so"], set()),
        (["libggml-cpu-haswell.so", "libggml-blas.so"], set()),
        (["libggml-cuda.so", "libggml-cuda.so.0", "libggml-cpu.so"], {"cuda"}),
        (["libggml-hip.so", "libggml-vulkan.so"], {"rocm", "vulkan"}),
        (["libggml-metal.dylib", "libggml-blas.dylib"], {"metal"}),
        (["ggml-cuda.dll", "ggml-cpu.dll", "ggml-sycl.dll"], {"cuda", "sycl"}),
        (["libggml-rpc.so", "libggml-opencl.so"], {"rpc", "other"}),
        (["libggml-cuda.txt"], set()),
    ],
)
def test_each_backend_is_a_library(tmp_path: Path, libraries: list[str], kinds: set[str]) -> None:
    assert built_with(tmp_path, *libraries) == kinds


def test_a_folder_that_is_missing_holds_none(tmp_path: Path) -> None:
    assert built_with(tmp_path / "none") == frozenset()


def test_the_installed_one_is_found_without_loading_it() -> None:
    code = (
        "import sys; from llm_router_mw.memory import backends; "
        "assert backends.library_folder({}).is_dir(); backends.installed_backends({}); "
        "sys.exit('llama_cpp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_llama_cpp_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert installed_backends({}) == frozenset()
