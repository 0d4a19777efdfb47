"""Distributions that are not really installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from types import SimpleNamespace

import pytest


def install(monkeypatch: pytest.MonkeyPatch, *entry_points: metadata.EntryPoint) -> None:
    """Pretend that distributions with *entry_points* are installed, and no others."""

    def found(*, group: str) -> Sequence[metadata.EntryPoint]:
        assert group == "llm_router_mw"
        return entry_points

    monkeypatch.setattr("llm_router_mw.router.plugins.metadata.entry_points", found)


def entry_point(name: str, loaded: object, version: str | None = "1.2") -> metadata.EntryPoint:
    """Return an entry point that gives *loaded*, or raises it."""

    def load() -> object:
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    dist = None if version is None else SimpleNamespace(name=f"dist-of-{name}", version=version)
    return SimpleNamespace(name=name, dist=dist, load=load)  # type: ignore[return-value]
