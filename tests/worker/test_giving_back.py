"""Giving memory back, where the C library can be told to."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest

from llm_router_mw.worker import memory


def test_freed_memory_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed: list[int] = []
    library = SimpleNamespace(malloc_trim=trimmed.append)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.give_back()
    assert trimmed == [0]


@pytest.mark.parametrize("platform", ["darwin", "win32", "linux"])
def test_other_c_libraries_are_told_nothing(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    memory.give_back()


def test_what_is_unknown_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "process_memory", lambda pid: None)
    assert memory.private_bytes() is None
