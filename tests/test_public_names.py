"""The package's face: its public names, and how little importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llm_router_mw


def test_all_is_sorted_and_complete() -> None:
    assert llm_router_mw.__all__ == sorted(llm_router_mw.__all__)
    assert set(llm_router_mw.__all__) == set(llm_router_mw._HOMES)


@pytest.mark.parametrize("name", llm_router_mw.__all__)
def test_a_public_name_can_be_imported_and_is_documented(name: str) -> None:
    public = getattr(llm_router_mw, name)
    assert public.__doc__
    assert name in dir(llm_router_mw)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'llm_router_mw' has no attribute 'Roter'"):
        llm_router_mw.Roter  # noqa: B018


def imported_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has imported after *statement*."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_importing_the_package_imports_no_framework() -> None:
    imported = imported_by("import llm_router_mw")
    assert "llm_router_mw" in imported
    assert not imported & {"starlette", "pluggy", "llama_cpp", "anyio", "msgspec"}


def test_the_words_and_the_wire_need_no_framework() -> None:
    imported = imported_by("import llm_router_mw.wire, llm_router_mw.gguf")
    assert not imported & {"starlette", "pluggy", "llama_cpp"}


def test_the_web_process_never_imports_llama_cpp() -> None:
    imported = imported_by("from llm_router_mw import LLMRouterMiddleware, Router")
    assert "starlette" in imported
    assert "llama_cpp" not in imported
