"""The bindings can be had without their package."""

from __future__ import annotations

import sys

import llama_cpp
import pytest

from llm_router_mw.engine import bare


def test_a_package_that_is_imported_already_stays() -> None:
    bare.import_bindings_only()
    assert sys.modules["llama_cpp"] is llama_cpp


def test_a_package_that_is_not_run_has_a_place_for_its_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "llama_cpp")
    bare.import_bindings_only()
    empty = sys.modules["llama_cpp"]
    assert empty.__path__ == llama_cpp.__path__
    assert not hasattr(empty, "Llama")


def test_without_the_bindings_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "llama_cpp")
    monkeypatch.setattr(bare, "find_spec", lambda _: None)
    bare.import_bindings_only()
    assert "llama_cpp" not in sys.modules
